"""A list is read one item at a time, however the network cuts it up, and whatever it is."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webhook.common import list_decoder
from webhook.common.list_decoder import MalformedError, items_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
LISTS = st.dictionaries(st.sampled_from(["metadata", "kind", "items", ""]), JSON).flatmap(
    lambda rest: st.lists(JSON, max_size=4).map(lambda items: {**rest, "items": items})
)


async def cut(text: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(text), size):
        yield text[at : at + size]


async def read(text: bytes, size: int = 5) -> tuple[list[Any], dict[str, Any]]:
    rest: dict[str, Any] = {}
    return [item async for item in items_of(cut(text, size), rest)], rest


@settings(deadline=None)
@given(
    whole=LISTS,
    size=st.integers(1, 40),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
    around=st.sampled_from([b"", b" \r\n\t"]),
)
def test_any_list_in_any_pieces(whole: Any, size: int, indent: int | None, ascii_only: bool, around: bytes) -> None:
    text = around + json.dumps(whole, indent=indent, ensure_ascii=ascii_only).encode() + around
    assert asyncio.run(read(text, size)) == (whole["items"], {**whole, "items": []})


@pytest.mark.parametrize(
    "text",
    [
        b'{"kind":"PodList","metadata":{"resourceVersion":"7","continue":"x"},"items":[{"a":1},{"a":2}]}',
        b'{"items":[{"a":1},{"a":2}],"metadata":{"continue":"x","resourceVersion":"7"},"kind":"PodList"}',
    ],
)
async def test_what_else_a_list_says_is_found_before_and_after_its_items(text: bytes) -> None:
    metadata = {"resourceVersion": "7", "continue": "x"}
    assert await read(text) == ([{"a": 1}, {"a": 2}], {"kind": "PodList", "metadata": metadata, "items": []})


@pytest.mark.parametrize("rest", [{}, {"items": None}, {"items": 3}, {"items": {"a": [1]}}])
async def test_what_has_no_array_of_items_is_as_it_is(rest: dict[str, Any]) -> None:
    assert await read(json.dumps(rest).encode()) == ([], rest)


async def test_an_item_is_given_before_the_next_has_come() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b'{"items":['
        while True:
            yield b'{"a":1},'

    items = items_of(endless(), {})
    assert [await anext(items) for _ in range(3)] == [{"a": 1}] * 3


async def test_a_long_item_is_not_tried_again_with_each_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    class Counting(json.JSONDecoder):
        def raw_decode(self, *args: Any, **kwargs: Any) -> Any:
            nonlocal tries
            tries += 1
            return super().raw_decode(*args, **kwargs)

    monkeypatch.setattr(list_decoder, "_decoder", Counting())
    text = json.dumps({"items": [{"a": "x" * 2**16}]}).encode()
    assert len((await read(text, 64))[0]) == 1
    assert tries < 20


@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
async def test_an_item_that_is_nested_too_deep_costs_only_itself(size: int) -> None:
    brackets = rb'"}]\\\"}]"'
    deep = b'{"a":' * 3000 + b"[" + brackets + b"," + brackets + b"]" + b"}" * 3000
    assert await read(b'{"items":[{"b":1},' + deep + b" ," + deep + b',{"b":2}]}', size) == (
        [{"b": 1}, None, None, {"b": 2}],
        {"items": []},
    )


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_bytes_that_are_not_utf_8_cost_nobody_anything(size: int) -> None:
    items, _ = await read(b'{"items":[{"f:\xff":{}},{"f:\xed\xa0\x80":{}},{"a":"\xc3\xa9"}]}', size)
    assert [[name[:2] for name in item] for item in items[:2]] == [["f:"], ["f:"]]
    assert items[2] == {"a": "é"}


async def test_to_skip_a_long_string_takes_no_memory() -> None:
    deep = b'{"items":[' + b"[" * 3000 + b'"' + b"\\u003c<" * 100_000 + b'"' + b"]" * 3000 + b"]}"
    tracemalloc.start()
    try:
        assert (await read(deep, 100_000))[0] == [None]
        assert tracemalloc.get_traced_memory()[1] < 6 * len(deep)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "it breaks off: b''"),
        (b"<html>", r"'<' where one of '{' was expected: b'<html'"),
        (b"[]", r"'\[' where"),
        (b'{"items":[{"a":1},{"a"', 'it breaks off: b\'{"items":\\[{"a":1},{"a"'),
        (b'{"items":[{"a":1}', "it breaks off"),
        (b'{"items":[1,]}', "it breaks off"),
        (b'{"items":[1}', "'}' where one of ',]'"),
        (b'{"items":[1 2]}', "'2' where one of ',]'"),
        (b'{"items":[]', "it breaks off"),
        (b'{"items":[]}}', "something comes after it"),
        (b'{"items":[]}  \n  {', "something comes after it"),
        (b"{3:4}", "something else than a name"),
        (b'{"a" 4}', "'4' where one of ':'"),
        (b'{"a":nonsense}', "it breaks off"),
        (b'{"a":"\xc3', "it breaks off"),
        (b'{"items":[' + b"[" * 3000 + b"]" * 2999, "it breaks off"),
    ],
)
async def test_what_is_no_list_is_told_with_the_reason_and_how_it_begins(text: bytes, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        await read(text)


async def test_a_value_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_decoder, "LONGEST_VALUE", 100)
    come = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal come
        yield b'{"items":["'
        while True:
            come += 10
            yield b"x" * 10

    with pytest.raises(MalformedError, match="a value of more than 100 characters"):
        await anext(items_of(endless(), {}))
    assert come < 130
