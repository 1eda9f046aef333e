"""Keeps a caller's view of one collection of the API equal to the server's: list, watch, and begin again.

Why not the client library's watch: it reconnects without a pause and mishandles 410 Gone, so that a long outage ends
either in a flood of requests or in a view that is old for ever.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Final

from webhook.common.backoff import delay_s
from webhook.common.kubeapi import ApiError, KubeApi

# As client-go: a watch asks to be ended after 5 to 10 minutes, so that load moves between API servers.
WATCH_SECONDS: Final = 300
FIRST_DELAY_S: Final = 0.5
LONGEST_DELAY_S: Final = 30.0
# A watch that lasted this long, or brought an event, was no failure: the next delay starts small again.
HEALTHY_AFTER_S: Final = 10.0

# When a watch can no longer be resumed, this often happens to all nodes at once (a restarted API server remembers no
# older versions): their lists are spread over this time. Limits hold meanwhile.
LIST_SPREAD_S: Final = 10.0
# As client-go: objects of one page of a list.
PAGE: Final = 500

# After these errors the view is still valid, and listing again would only add to the server's load.
_RESUMABLE_STATUS: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_RESUMABLE_REASON: Final = frozenset({"Unreachable", "ShortWatch", "NoToken"})
_REFUSED_STATUS: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_KINDS: Final = frozenset({"ADDED", "MODIFIED", "DELETED"})
_ANY_VERSION: Final = "0"
_NEWEST_VERSION: Final = ""

logger = logging.getLogger(__name__)


class Reflector:
    """Lists a collection, then watches it from the list's resourceVersion, for ever.

    `on_sync` gets the complete list, at the start and whenever events may have been missed (410 Gone): objects not in
    it are gone. `on_event` gets `"ADDED"`, `"MODIFIED"` or `"DELETED"` and the object; an object may come again
    unchanged. Both get the result of `keep` for an object, and not the object where that is None: a collection may be
    too large to be held whole. All callbacks run in the event loop and must not block. Items of a list carry neither
    `kind` nor `apiVersion`; every object has a `metadata` with a `name`.

    A lost connection is resumed from the last version, however long the API server was away. Lists are requested as by
    client-go, so that they cost etcd nothing: at first any version that the API server has in memory, later one no
    older than the last seen; the newest only where the server does not know that one (KEP-2340).

    `synced` is set after the first list, and stays set. `on_restart` is called with the error of each failed list or
    watch. `connected` is whether a watch is open, or the last one ended normally; `refused` is the API server's last
    answer, if that was 401 or 403. `spread_s` is 0 for the few callers that must not miss what happens meanwhile.
    `monotonic` gives seconds; `uniform` a random number from 0 to 1.
    """

    def __init__(
        self,
        api: KubeApi,
        path: str,
        *,
        params: Mapping[str, str],
        on_sync: Callable[[list[Any]], None],
        on_event: Callable[[str, Any], None],
        keep: Callable[[dict[str, Any]], Any] = lambda item: item,
        on_restart: Callable[[ApiError], None] = lambda _: None,
        spread_s: float = LIST_SPREAD_S,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self.synced = asyncio.Event()
        self.connected = False
        self.refused: ApiError | None = None
        self._api = api
        self._path = path
        self._params = dict(params)
        self._on_sync = on_sync
        self._on_event = on_event
        self._keep = keep
        self._on_restart = on_restart
        self._spread_s = spread_s
        self._monotonic = monotonic
        self._sleep = sleep
        self._uniform = uniform
        self._is_listed = False
        self._version = _ANY_VERSION
        self._failures = 0

    async def run(self) -> None:
        """Run until cancelled; an exception of a callback is a defect, and ends it too."""
        while True:
            try:
                if not self._is_listed:
                    await self._list()
                await self._watch()
            except ApiError as error:
                self.connected = False
                if error.status:  # without an answer, the last refusal stands
                    self.refused = error if error.status in _REFUSED_STATUS else None
                self._on_restart(error)
                delay = self._delay_after(error)
                # 410 is normal for an old resourceVersion, as after an hour without a connection; silence is normal in
                # a cluster in which nothing happens.
                is_ordinary = error.status == HTTPStatus.GONE or error.reason == "Silent"
                level = logging.INFO if is_ordinary else logging.WARNING
                logger.log(level, "watch of %s failed, again in %.1f s: %s", self._path, delay, error)
                await self._sleep(delay)

    async def _list(self) -> None:
        try:
            version, items = await self._pages()
        except ApiError as error:
            # No other error leads to a list of the newest, which is read from etcd, maybe for all nodes at once.
            # _ANY_VERSION is never unknown: with it, such an error means that a page expired.
            if self._version != _ANY_VERSION and _is_of_an_unknown_version(error):
                self._version = _NEWEST_VERSION
            raise
        self._on_sync(items)
        self._version = version
        self._is_listed = True
        self.synced.set()

    async def _pages(self) -> tuple[str, list[Any]]:
        """The version of the list, and what is kept of its objects."""
        params = {**self._params, "limit": str(PAGE)}
        if self._version != _NEWEST_VERSION:
            params["resourceVersion"] = self._version
        if self._version not in {_ANY_VERSION, _NEWEST_VERSION}:
            del params["limit"]  # with it, older servers would read etcd
        kept: list[Any] = []

        def take(item: Any) -> None:
            if self._is_object(item) and (made := self._keep(item)) is not None:
                kept.append(made)

        while True:
            page = await self._api.read_list(self._path, params, take)
            try:
                version, more = page["metadata"]["resourceVersion"], page["metadata"].get("continue")
                is_list = page["items"] in ([], None)
            except (AttributeError, KeyError, TypeError):
                version, more, is_list = None, None, False
            if not is_list:
                raise ApiError(0, "NoList", f"the API server's answer to {self._path} is no list")
            if not more:
                return str(version), kept
            params = {**self._params, "limit": str(PAGE), "continue": more}

    def _is_object(self, item: Any) -> bool:
        if _named(item):
            return True
        logger.warning("the API server's list of %s holds something that is no object: %.200r", self._path, item)
        return False

    async def _watch(self) -> None:
        params = {
            **self._params,
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(round(WATCH_SECONDS * (1 + self._uniform()))),
        }
        begun = self._monotonic()
        try:
            async with aclosing(self._api.watch(self._path, params, self._opened)) as events:
                async for event in events:
                    self._take(event["type"], event["object"])
                    self._failures = 0
                    await asyncio.sleep(0)  # many come at once: other tasks run in between
        finally:
            lasted = self._monotonic() - begun
            if lasted >= HEALTHY_AFTER_S:
                self._failures = 0
        if lasted < HEALTHY_AFTER_S:
            # An API server that shuts down ends watches so, and so does a broken proxy, which must not be called in a
            # loop.
            raise ApiError(0, "ShortWatch", f"the API server ended the watch after {lasted:.1f} s")

    def _opened(self) -> None:
        self.connected, self.refused = True, None

    def _take(self, kind: str, item: dict[str, Any]) -> None:
        # A BOOKMARK is just a newer version to resume from: it keeps a quiet watch from growing too old.
        if kind in _KINDS and _named(item):
            if (made := self._keep(item)) is not None:
                self._on_event(kind, made)
        elif kind != "BOOKMARK" or not isinstance(item.get("metadata"), dict):
            raise ApiError(0, "Malformed", f"the API server's watch sent something that is no event: {item!r:.200}")
        version = item["metadata"].get("resourceVersion")
        self._version = version if isinstance(version, str) and version else self._version

    def _delay_after(self, error: ApiError) -> float:
        """How long to wait beyond what the server asks for, from 0 to a bound that doubles each time.

        Also decides whether a list comes next.

        Full jitter, so that nodes that all lost the API server at once do not all come back at once.
        """
        self._failures += 1
        longest = delay_s(self._failures, FIRST_DELAY_S, LONGEST_DELAY_S)
        if self._is_listed and error.status not in _RESUMABLE_STATUS and error.reason not in _RESUMABLE_REASON:
            self._is_listed = False
            longest = max(longest, self._spread_s)
        return error.retry_after_s + longest * self._uniform()


def _is_of_an_unknown_version(error: ApiError) -> bool:
    """As client-go: 410 for a version that is too old, 504 with this cause for a future one; 400 for an invalid one."""
    is_of_future = "ResourceVersionTooLarge" in error.causes or "Too large resource version" in error.message
    is_of_others = error.status in {HTTPStatus.GONE, HTTPStatus.BAD_REQUEST}
    return is_of_others or (error.status == HTTPStatus.GATEWAY_TIMEOUT and is_of_future)


def _named(item: Any) -> bool:
    metadata = item.get("metadata") if isinstance(item, dict) else None
    return isinstance(metadata, dict) and isinstance(metadata.get("name"), str)
