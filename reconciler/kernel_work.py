"""The one thread that works on the kernel, and the turn at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")

HANGS_S = 30.0
"""A call takes milliseconds, and seconds where a Pod has made thousands of links or filters."""


class KernelWork:
    """What is looked at in the kernel and then done there is one turn: nothing of ours comes in between."""

    def __init__(self, executor: Executor, monotonic: Callable[[], float]) -> None:
        self._executor, self._monotonic = executor, monotonic
        self._began_s: float | None = None
        self.turn = asyncio.Lock()

    @property
    def trouble(self) -> str | None:
        """Why nothing can be done in the kernel: a call does not return, as while something holds rtnl for ever."""
        began_s = self._began_s
        waited_s = 0.0 if began_s is None else self._monotonic() - began_s
        if waited_s < HANGS_S:
            return None
        return (
            f"the kernel has not answered for {waited_s:.0f} s: is its network configuration stuck (`ip link` hangs "
            "too, and the kernel's log may tell of blocked tasks)? Limits in force stay; nothing is limited anew"
        )

    async def do(self, call: Callable[..., T], *args: Any) -> T:
        """Call it on the thread, in a turn of its own."""
        async with self.turn:
            return await self.within(call, *args)

    async def within(self, call: Callable[..., T], *args: Any) -> T:
        """Call it on the thread, in the caller's turn."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._timed, call, *args)

    def _timed(self, call: Callable[..., T], *args: Any) -> T:
        self._began_s = self._monotonic()
        try:
            return call(*args)
        finally:
            self._began_s = None
