"""Decodes a list from the API server as it arrives, item by item, as the whole may not fit in memory. Pure.

Decoded JSON takes twenty times the memory: 20 Pods of 1.4 MB each, which anybody may write, took 460 MB.
"""

import codecs
import json
import re
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any, Final

# etcd refuses objects over 1.5 MiB, which is less than this as JSON.
LONGEST_VALUE: Final = 16 * 2**20

_SPACE: Final = " \t\r\n"
_NEXT: Final = re.compile(rf"[{_SPACE}]*([^{_SPACE}])")
# A value is complete only once one of these follows: a number that was read may be the first digits of a longer one.
_AFTER_VALUE: Final = frozenset((*_SPACE, *",:]}"))
# Strings, also one that breaks off, and the brackets of objects and arrays. Possessive, as backtracking would cost a
# hundred bytes for each character of a string.
_NESTING: Final = re.compile(r'"(?:[^"\\]++|\\.|\\\Z)*+(?:"|\Z)|[][{}]', re.DOTALL)
_BEGINNING: Final = 200
_decoder: Final = json.JSONDecoder()


class MalformedError(Exception):
    """The text is no JSON object, or one of its values is too long; says why, and how the text begins."""


async def items_of(chunks: AsyncIterable[bytes], rest: dict[str, Any]) -> AsyncGenerator[Any]:
    """The items of a list, held one at a time, however the network cuts it up. Raises MalformedError.

    `rest` gets the object's other members, in any order, and an empty list for `items`. If `items` is no array, it is
    kept as it is.
    """
    text = _Text(chunks)
    async for _ in text.entries("{", "}"):
        name = await text.name()
        if name == "items" and await text.peek() == "[":
            rest["items"] = []
            async for _ in text.entries("[", "]"):
                yield await text.value()
        else:
            rest[name] = await text.value()
    await text.end()


class _Text:
    """JSON that comes in pieces, and how far it has been read."""

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._chunks = aiter(chunks)
        # One author's invalid UTF-8 must not make all objects unreadable: the API server passes some on as it came.
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._beginning = b""
        self._text, self._at = "", 0

    async def entries(self, opening: str, closing: str) -> AsyncGenerator[None]:
        """Yields before each entry of an object or an array, for the caller to read it."""
        await self.take(opening)
        if await self.peek() == closing:
            await self.take(closing)
            return
        while True:
            yield
            if await self.take("," + closing) == closing:
                return

    async def peek(self) -> str:
        """The next character that is no space; not read yet."""
        while not (found := _NEXT.match(self._text, self._at)):
            await self._more()
        self._at = found.start(1)
        return found[1]

    async def take(self, expected: str) -> str:
        """Read one of these characters."""
        found = await self.peek()
        if found not in expected:
            raise self._malformed(f"{found!r} where one of {expected!r} was expected")
        self._at += 1
        return found

    async def name(self) -> str:
        """Read the name of a member of an object."""
        name = await self.value()
        if not isinstance(name, str):
            raise self._malformed("something else than a name in an object")
        await self.take(":")
        return name

    async def value(self) -> Any:
        """Read a whole value; None for one that is nested too deep to be decoded, as `managedFields` may be."""
        await self.peek()
        while True:
            try:
                value, end = _decoder.raw_decode(self._text, self._at)
            except ValueError:
                pass  # there may be more of it
            except RecursionError:
                if end := _end(self._text, self._at):
                    self._at = end
                    return None
            else:
                if self._text[end : end + 1] in _AFTER_VALUE:
                    self._at = end
                    return value
            await self._more()

    async def end(self) -> None:
        """Read to the end; only spaces may follow."""
        after = self._text[self._at :]
        while not after.strip(_SPACE):
            if (chunk := await anext(self._chunks, None)) is None:
                return
            after = self._decoded(chunk)
        raise self._malformed("something comes after it")

    async def _more(self) -> None:
        """Double the unread text, so that a long value is not decoded again with each piece of it."""
        pieces = [self._text[self._at :]]
        unread = len(pieces[0])
        if unread > LONGEST_VALUE:
            raise self._malformed(f"a value of more than {LONGEST_VALUE} characters")
        enough = min(2 * unread, LONGEST_VALUE)
        while unread <= enough and (chunk := await anext(self._chunks, None)) is not None:
            pieces.append(self._decoded(chunk))
            unread += len(pieces[-1])
        if not any(pieces[1:]):
            raise self._malformed("it breaks off")
        self._text, self._at = "".join(pieces), 0

    def _decoded(self, chunk: bytes) -> str:
        self._beginning += chunk[: _BEGINNING - len(self._beginning)]
        return self._decode(chunk)

    def _malformed(self, why: str) -> MalformedError:
        return MalformedError(f"{why}: {self._beginning!r}")


def _end(text: str, at: int) -> int:
    """Where an object or an array ends; 0 if it breaks off."""
    depth = 0
    for found in _NESTING.finditer(text, at):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(found[0], 0)
        if not depth:
            return found.end()
    return 0
