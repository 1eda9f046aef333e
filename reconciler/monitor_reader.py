"""Reads the netlink monitor's notifications in the event loop, at a bounded rate."""

from __future__ import annotations

import asyncio

from reconciler.controller import Controller
from reconciler.kernel.monitor import Monitor

# A Pod with NET_ADMIN can make notifications faster than they can be read: those of this period are read in one go.
PAUSE_S = 0.1


class MonitorReader:
    """Hands what a Monitor hears to the controller, on the running loop, from construction until `close`."""

    def __init__(self, monitor: Monitor, controller: Controller) -> None:
        self._monitor, self._controller = monitor, controller
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
        changes = self._monitor.read()
        self._controller.on_netns_changed(changes.netns_paths)
        if changes.may_be_anywhere:
            self._controller.on_any_changed()
