"""Which Pod is looked at next."""

from __future__ import annotations

import asyncio
import itertools
from enum import IntEnum


class Urgency(IntEnum):
    """What is looked at first. A Pod that keeps changing its own network never delays what somebody asked for."""

    ASKED = 0
    """The API server or the runtime wants something else than before, or something failed and is tried again."""
    CHANGED = 1
    """Somebody changed something in the kernel."""
    PERHAPS = 2
    """Something may have changed, in any Pod."""


class Due:
    """The uids of Pods to look at, the most urgent first, and among those the first named; each is in it once."""

    def __init__(self) -> None:
        self._queue: asyncio.PriorityQueue[tuple[Urgency, int, str]] = asyncio.PriorityQueue()
        self._urgencies: dict[str, Urgency] = {}
        self._serial = itertools.count()

    def add(self, uid: str, urgency: Urgency) -> None:
        """Name a Pod; naming it again can only make it more urgent."""
        before = self._urgencies.get(uid)
        if before is None or urgency < before:
            self._urgencies[uid] = urgency
            self._queue.put_nowait((urgency, next(self._serial), uid))

    async def next(self) -> str:
        """Take the next one; waits while there is none."""
        while True:
            urgency, _, uid = await self._queue.get()
            if self._urgencies.get(uid) == urgency:  # else it stands there also as more urgent, or was taken as such
                del self._urgencies[uid]
                return uid
