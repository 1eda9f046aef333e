"""Keeps a caller's view of one collection of the API equal to the server's: list, watch, and begin again.

Why not the client library's watch: it reconnects without a pause and mishandles 410 Gone, so that a long outage ends
either in a flood of requests or in a view that is old for ever.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Final, Protocol

from webhook.kubeapi import ApiError

# As client-go: a watch asks to be ended after 5 to 10 minutes, so that load moves between API servers.
WATCH_SECONDS: Final = 300
FIRST_DELAY_S: Final = 0.5
LONGEST_DELAY_S: Final = 30.0
# A watch that lasted this long, or brought an event, was no failure: the next delay starts small again.
HEALTHY_AFTER_S: Final = 10.0

# Failures in a row that make an outage. After one a fresh list: where etcd came back from a backup, resourceVersions
# begin again lower, and a watch from a version of the future is not refused but silent (tried on 1.37).
OUTAGE_FAILURES: Final = 3

# After these the list is still good, and listing again would only add to the server's trouble.
_RESUMABLE: Final = frozenset({0, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})

logger = logging.getLogger(__name__)


class ListAndWatch(Protocol):
    """The part of KubeApi that is needed here."""

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Read a list."""
        ...

    def watch(self, path: str, params: Mapping[str, str]) -> AsyncGenerator[dict[str, Any]]:
        """The events of one watch connection."""
        ...


class Reflector:
    """Lists a collection, then watches it from the list's resourceVersion, for ever.

    `on_sync` gets the complete list, at the start and whenever events may have been missed (410 Gone): what is not in
    it is gone. `on_event` gets `"ADDED"`, `"MODIFIED"` or `"DELETED"` and the object; an object may come again as it
    was. Both run in the event loop and must not block. Items of a list carry neither `kind` nor `apiVersion`.

    `synced` is set after the first list, and stays set. `restarts` counts lists and watches that failed.
    `clock` gives seconds, monotonic; `uniform` a random number from 0 to 1.
    """

    def __init__(
        self,
        api: ListAndWatch,
        path: str,
        *,
        params: Mapping[str, str],
        on_sync: Callable[[list[dict[str, Any]]], None],
        on_event: Callable[[str, dict[str, Any]], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self.synced = asyncio.Event()
        self.restarts = 0
        self._api = api
        self._path = path
        self._params = dict(params)
        self._on_sync = on_sync
        self._on_event = on_event
        self._clock = clock
        self._sleep = sleep
        self._uniform = uniform
        self._version: str | None = None
        self._failures = 0

    async def run(self) -> None:
        """Run until cancelled; an exception of a callback is a defect, and ends it too."""
        while True:
            try:
                if self._version is None:
                    await self._list()
                await self._watch()
            except ApiError as error:
                if error.status not in _RESUMABLE or self._failures >= OUTAGE_FAILURES:
                    self._version = None
                self.restarts += 1
                delay = self._next_delay()
                # 410 is the ordinary end of an old resourceVersion, as after an hour without a connection.
                level = logging.INFO if error.status == HTTPStatus.GONE else logging.WARNING
                logger.log(level, "watch of %s failed, again in %.1f s: %s", self._path, delay, error)
                await self._sleep(delay)

    async def _list(self) -> None:
        answer = await self._api.get(self._path, self._params)
        try:
            version, items = answer["metadata"]["resourceVersion"], answer["items"] or []
        except (KeyError, TypeError) as error:
            raise ApiError(0, "NoList", f"the API server's answer to {self._path} is no list") from error
        self._on_sync(items)
        self._version = version
        self.synced.set()

    async def _watch(self) -> None:
        params = {
            **self._params,
            "resourceVersion": self._version or "",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(round(WATCH_SECONDS * (1 + self._uniform()))),
        }
        begun = self._clock()
        try:
            async with aclosing(self._api.watch(self._path, params)) as events:
                async for event in events:
                    self._failures = 0
                    item = event["object"]
                    # A BOOKMARK is just a newer version to resume from: it keeps a quiet watch from growing too old.
                    if event["type"] != "BOOKMARK":
                        self._on_event(event["type"], item)
                    self._version = item["metadata"].get("resourceVersion") or self._version
        finally:
            lasted = self._clock() - begun
            if lasted >= HEALTHY_AFTER_S:
                self._failures = 0
        if lasted < HEALTHY_AFTER_S:
            # An API server that shuts down does so, and a broken proxy in between, which must not be called in a loop.
            raise ApiError(0, "ShortWatch", f"the API server ended the watch after {lasted:.1f} s")

    def _next_delay(self) -> float:
        """Doubles up to the cap; between half and all of it, so that all nodes do not come back at one moment."""
        delay = min(FIRST_DELAY_S * 2.0**self._failures, LONGEST_DELAY_S)
        self._failures = min(self._failures + 1, 16)
        return delay * (0.5 + self._uniform() / 2)
