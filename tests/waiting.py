"""What goes on in a test's event loop: waiting for what tells nobody when it is so, and work beside the test."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

PATIENCE_S = 20.0
LOOK_S = 0.002


async def until(condition: Callable[[], object], *, seconds: float = PATIENCE_S) -> None:
    """Wait until it holds, or what it awaits does. Raises TimeoutError if it does not in time."""

    async def holds() -> object:
        answer = condition()
        return await answer if asyncio.iscoroutine(answer) else answer

    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(LOOK_S)


async def turns(count: int = 20) -> None:
    """Let the others have their turn, so often."""
    for _ in range(count):
        await asyncio.sleep(0)


@asynccontextmanager
async def background(work: Coroutine[Any, Any, object]) -> AsyncIterator[asyncio.Task[object]]:
    """It goes on as long as the block lasts; if it failed, that is raised at the end."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
