"""What a process of ours remembers: each string that can be reached from an object, by the way that leads there."""

import asyncio
import re
from collections import deque
from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType

OURS = ("reconciler.", "webhook.", "asyncio.queues")


def remembered(root: object, pattern: str) -> dict[str, str]:
    """The strings that match all of a pattern, by attributes' names from the root.

    Looks into containers, objects of our own classes, what functions close over, and what tasks are at.
    """
    found: dict[str, str] = {}
    seen: dict[int, object] = {}  # kept, as another object could get the place of one that is gone
    waiting: deque[tuple[str, object]] = deque([(type(root).__name__, root)])
    while waiting:
        way, value = waiting.popleft()
        if isinstance(value, str):
            if re.fullmatch(pattern, value):
                found.setdefault(way, value)
        elif id(value) not in seen:
            seen[id(value)] = value
            waiting.extend((way + step, held) for step, held in _held(value))
    return found


def _held(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, held in value.items():
            yield from (("[]", key), ("[]", held))
    elif isinstance(value, list | tuple | set | frozenset | deque):
        yield from (("[]", held) for held in value)
    elif isinstance(value, asyncio.Task):
        frame = getattr(value.get_coro(), "cr_frame", None)
        yield "()", frame and dict(frame.f_locals)
    elif isinstance(value, MethodType):
        yield "", value.__self__
    elif isinstance(value, FunctionType):
        yield from (("", cell.cell_contents) for cell in value.__closure__ or ())
    elif type(value).__module__.startswith(OURS):
        slots = {
            name for each in type(value).__mro__ for name in getattr(each, "__slots__", ()) if hasattr(value, name)
        }
        yield from ((f".{name}", getattr(value, name)) for name in slots)
        yield from ((f".{name}", held) for name, held in getattr(value, "__dict__", {}).items())
