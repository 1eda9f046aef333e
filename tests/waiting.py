"""Waiting in a test's event loop for what tells nobody when it is so."""

import asyncio
from collections.abc import Callable

PATIENCE_S = 20.0
LOOK_S = 0.002


async def until(condition: Callable[[], object], *, seconds: float = PATIENCE_S) -> None:
    """Wait until it holds. Raises TimeoutError if it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(LOOK_S)
