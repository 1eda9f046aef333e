"""Time on a machine that stalls: readings with their moment, waiting for conditions, and the stalls themselves."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

_T = TypeVar("_T")
CLOSE_NS = 5_000_000
MOST_READINGS = 5
POLL_S, LOOK_S = 0.01, 0.05


def stamped(read: Callable[[], _T]) -> tuple[int, _T]:
    """What is read, and when (ns, monotonic): once more if it took over 5 ms, as the moment is then not known."""
    best: tuple[int, int, _T] | None = None
    for _ in range(MOST_READINGS):
        began = time.monotonic_ns()
        value = read()
        took = time.monotonic_ns() - began
        if best is None or took < best[0]:
            best = took, began + took // 2, value
        if took <= CLOSE_NS:
            break
    assert best
    return best[1:]


def megabits(earlier: tuple[int, int], later: tuple[int, int]) -> float:
    """Mbit/s between two readings of a counter of bytes."""
    return (later[1] - earlier[1]) * 8000 / (later[0] - earlier[0])


def rate(read: Callable[[], int], seconds: float) -> float:
    """Mbit/s by a counter of bytes, from now on."""
    before = stamped(read)
    time.sleep(seconds)
    return megabits(before, stamped(read))


def until(condition: Callable[[], bool], *, seconds: float, show: Callable[[], object] = str) -> float:
    """Wait for it; when the look began (s, monotonic) that found it so. Fails, with `show`, if none does in time."""
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if condition():
            return began
        assert began < deadline, f"not so within {seconds} s: {show()}"
        time.sleep(LOOK_S)


class Stalls:
    """The times at which a thread that asks for the CPU every 10 ms did not get it."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._gaps: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._run, name="stalls")

    def _run(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(POLL_S):
            now = time.monotonic()
            self._gaps.append((last + POLL_S, now))
            last = now

    def longest(self, began: float, ended: float) -> float:
        """The longest of them in a period, in s: not the program's doing, so what it took may be less by that."""
        return max([0.0, *(min(until, ended) - max(since, began) for since, until in list(self._gaps))])

    def took(self, began: float, ended: float) -> float:
        """How long a period was but for the longest of them, in s."""
        return ended - began - self.longest(began, ended)

    @classmethod
    @contextmanager
    def noted(cls) -> Iterator["Stalls"]:
        """Noted as long as a `with` lasts."""
        stalls = cls()
        stalls._thread.start()
        try:
            yield stalls
        finally:
            stalls._ended.set()
            stalls._thread.join()
