"""The one thread that works on the kernel, and the turn at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")


class KernelWork:
    """What is looked at in the kernel and then done there is one turn: nothing of ours comes in between."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.turn = asyncio.Lock()

    async def do(self, call: Callable[..., T], *args: Any) -> T:
        """Call it on the thread, in a turn of its own."""
        async with self.turn:
            return await self.within(call, *args)

    async def within(self, call: Callable[..., T], *args: Any) -> T:
        """Call it on the thread, in the caller's turn."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *args)
