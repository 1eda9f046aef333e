"""Runs calls on the one thread that works on the kernel, and holds the lock for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar, TypeVarTuple

from reconciler.kernel.errors import defects_told

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

HANGS_S = 30.0
"""A call takes milliseconds, and seconds where a Pod has made thousands of links or filters."""
LOAD_HANGS_S = 660.0
"""For compiling, which takes long by itself on a busy node, and is given up after ten minutes."""


class KernelExecutor:
    """Looking at the kernel and then changing it happens under one lock: no other work of ours comes in between.

    Any error of a call is raised as a ShapingError, unforeseen ones too; `run_load` raises it unchanged.
    """

    def __init__(self, executor: Executor, monotonic: Callable[[], float]) -> None:
        self._executor, self._monotonic = executor, monotonic
        self._at_work: tuple[float, float] | None = None
        self._lock = asyncio.Lock()
        self._running: Future[Any] | None = None
        """The call that the thread is at, or was at when its caller gave up."""

    @property
    def trouble(self) -> str | None:
        """Why no work on the kernel is possible: a call does not return, for example as rtnl is held for ever."""
        began_s, hangs_s = self._at_work or (self._monotonic(), HANGS_S)
        waited_s = self._monotonic() - began_s
        if waited_s < hangs_s:
            return None
        return (
            f"the kernel has not answered for {waited_s:.0f} s: is its network configuration stuck (`ip link` hangs "
            "too, and the kernel's log may tell of blocked tasks)? Limits in force stay; nothing is limited anew"
        )

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """Hold the lock. A call that its caller gave up still runs on the thread: the lock is freed when it ends."""
        await self._lock.acquire()
        try:
            yield
        finally:
            if self._running is None or self._running.done():
                self._lock.release()
            else:
                loop = asyncio.get_running_loop()
                self._running.add_done_callback(lambda _: _soon(loop, self._lock.release))
            self._running = None

    async def run(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call it on the thread, and hold the lock meanwhile. Raises ShapingError."""
        async with self.lock():
            return await self.run_locked(call, *args)

    async def run_load(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """As `run`, for calls that compile. Raises whatever the call raises."""
        async with self.lock():
            return await self._on_thread(LOAD_HANGS_S, call, *args)

    async def run_locked(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call it on the thread, for a caller that holds the lock. Raises ShapingError."""
        with defects_told():
            return await self._on_thread(HANGS_S, call, *args)

    async def _on_thread(self, hangs_s: float, call: Callable[[*Ts], T], *args: *Ts) -> T:
        running = self._executor.submit(lambda: self._timed(hangs_s, call, *args))
        self._running = running
        return await asyncio.wrap_future(running)

    def _timed(self, hangs_s: float, call: Callable[[*Ts], T], *args: *Ts) -> T:
        self._at_work = self._monotonic(), hangs_s
        try:
            return call(*args)
        finally:
            self._at_work = None


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Have the loop make a call, from another thread."""
    with suppress(RuntimeError):  # the loop is closed, as the process ends
        loop.call_soon_threadsafe(call)
