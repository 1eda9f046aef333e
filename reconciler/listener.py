"""Reads the kernel's notifications as they come, but not all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from reconciler.kernel.monitor import Changes, Monitor

# A Pod with NET_ADMIN can make notifications faster than they can be read: those of this time are read in one go.
PAUSE_S = 0.1


class Listener:
    """Hands what a Monitor hears to a function, on the running loop, from construction until `close`."""

    def __init__(self, monitor: Monitor, on_changes: Callable[[Changes], None]) -> None:
        self._monitor, self._on_changes = monitor, on_changes
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._listen()

    def close(self) -> None:
        """Stop reading; the Monitor stays open."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._monitor.fileno())

    def _listen(self) -> None:
        self._loop.add_reader(self._monitor.fileno(), self._read)

    def _read(self) -> None:
        self._loop.remove_reader(self._monitor.fileno())
        self._pause = self._loop.call_later(PAUSE_S, self._listen)
        self._on_changes(self._monitor.read())
