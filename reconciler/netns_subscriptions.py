"""Which network namespaces the netlink monitor is subscribed to."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from reconciler.kernel.errors import NetnsGoneError, ShapingError
from reconciler.kernel.monitor import Monitor

logger = logging.getLogger(__name__)


class NetnsSubscriptions:
    """Subscribes the monitor to each netns once. Call it while nothing else works on the kernel."""

    def __init__(self, monitor: Monitor, run: Callable[..., Awaitable[None]]) -> None:
        self._monitor, self._run = monitor, run
        self._subscribed: set[str] = set()

    def has(self, netns_path: str) -> bool:
        """Whether changes in the netns are notified."""
        return netns_path in self._subscribed

    async def subscribe(self, netns_path: str) -> bool:
        """Be notified of changes in the netns from now on. Returns whether that is new."""
        if netns_path in self._subscribed:
            return False
        try:
            await self._run(self._monitor.watch, netns_path)
        except NetnsGoneError:
            return False  # the caller finds out as well
        except ShapingError as error:  # for example out of descriptors
            # The limit still holds. What others change there is found later: the caller tries again.
            logger.warning("cannot subscribe to a Pod's netns", extra={"netns": netns_path, "error": str(error)})
            return False
        self._subscribed.add(netns_path)
        return True

    def unsubscribe(self, netns_path: str) -> None:
        """The netns is going."""
        self._monitor.unwatch(netns_path)
        self._subscribed.discard(netns_path)
