"""The work queue of Pods to reconcile: by priority, without duplicates."""

from __future__ import annotations

import asyncio
import itertools
from enum import IntEnum


class Priority(IntEnum):
    """What is reconciled first. A Pod that keeps changing its own network never delays what was requested."""

    REQUESTED = 0
    """The API server or the runtime wants something else than before, or a failure is tried again."""
    DRIFT = 1
    """Something was changed in the kernel, or may have been while nobody listened, in a Pod that had its limits."""
    RESYNC = 2
    """Something may have changed, in any Pod."""


class WorkQueue:
    """The uids of Pods to reconcile, by priority, then in the order of adding; each is in it once."""

    def __init__(self) -> None:
        self._queue: asyncio.PriorityQueue[tuple[Priority, int, str]] = asyncio.PriorityQueue()
        self._priorities: dict[str, Priority] = {}
        self._serial = itertools.count()

    def add(self, uid: str, priority: Priority) -> None:
        """Add a Pod; adding it again can only raise its priority."""
        before = self._priorities.get(uid)
        if before is None or priority < before:
            self._priorities[uid] = priority
            self._queue.put_nowait((priority, next(self._serial), uid))

    async def get(self) -> str:
        """Take the next one; waits while there is none."""
        while True:
            priority, _, uid = await self._queue.get()
            if self._priorities.get(uid) == priority:  # else it is queued at a higher priority, or was taken
                del self._priorities[uid]
                return uid
