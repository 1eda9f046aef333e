"""The one thread that works on the kernel, and the turn at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")

HANGS_S = 30.0
"""A call takes milliseconds, and seconds where a Pod has made thousands of links or filters."""
LOAD_HANGS_S = 180.0
"""Of what compiles, which on a busy node takes long by itself, and is given up after two minutes."""


class KernelWork:
    """What is looked at in the kernel and then done there is one turn: nothing of ours comes in between."""

    def __init__(self, executor: Executor, monotonic: Callable[[], float]) -> None:
        self._executor, self._monotonic = executor, monotonic
        self._at_work: tuple[float, float] | None = None
        self.turn = asyncio.Lock()

    @property
    def trouble(self) -> str | None:
        """Why nothing can be done in the kernel: a call does not return, as while something holds rtnl for ever."""
        began_s, hangs_s = self._at_work or (self._monotonic(), HANGS_S)
        waited_s = self._monotonic() - began_s
        if waited_s < hangs_s:
            return None
        return (
            f"the kernel has not answered for {waited_s:.0f} s: is its network configuration stuck (`ip link` hangs "
            "too, and the kernel's log may tell of blocked tasks)? Limits in force stay; nothing is limited anew"
        )

    async def do(self, call: Callable[..., T], *args: Any) -> T:
        """Call it on the thread, in a turn of its own."""
        async with self.turn:
            return await self.within(call, *args)

    async def load(self, call: Callable[..., T], *args: Any) -> T:
        """As `do`, for what compiles."""
        async with self.turn:
            return await self._on_thread(LOAD_HANGS_S, call, *args)

    async def within(self, call: Callable[..., T], *args: Any) -> T:
        """Call it on the thread, in the caller's turn."""
        return await self._on_thread(HANGS_S, call, *args)

    async def _on_thread(self, hangs_s: float, call: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._timed, hangs_s, call, *args)

    def _timed(self, hangs_s: float, call: Callable[..., T], *args: Any) -> T:
        self._at_work = self._monotonic(), hangs_s
        try:
            return call(*args)
        finally:
            self._at_work = None
