"""Events on Pods and on the node: queued at once, posted in the background, never waited for.

Shaping must not depend on the API server, so a queue of bounded length stands between; an event that cannot be posted
in a few tries is dropped and counted, and where the queue is full the newest of the namespace that has most in it: the
Pods of one must not cost those of another their events. If one namespace refuses events for a while, or does not answer
(its admission webhook is down, say), they wait aside: neither the Node's events, which go first, nor those of other
namespaces wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

from reconciler.forbidden import refusal
from reconciler.pods import PodView
from reconciler.report import Notice
from webhook.common.event import event
from webhook.common.kubeapi import ApiError, KubeApi
from webhook.common.token_bucket import TokenBucket

# For each Pod and reason: no Pod floods the API server, and one whose shaping is repaired all the time still gets the
# event that its limit changed.
AT_ONCE, PERIOD_S = 20, 30.0

# Without the right to create events none is ever seen: the log says so, but not for each event.
FORBIDDEN_TOLD_EVERY_S = 3600.0

# The Node has few events; they have room of their own when Pods' events fill the queue.
ROOM_FOR_NODE = 50

# How many events that were refused before are posted at the same time.
AT_ONCE_AGAIN = 4

# The delay before the second try; it doubles for each further one.
FIRST_DELAY_S = 1.0

# How long posting may go on at the end of the process; Pods are still limited then.
FINISH_S = 2.0

# An API server that has just started answers so until it has read the users and their rights.
_PERHAPS_TOO_EARLY = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})

# Too much at once; or a conflict about something else than this event, which is known by another reason.
_OF_THE_MOMENT = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.CONFLICT})

# Messages of a 403 where the rights are there, but the namespace takes no event.
_OF_THE_NAMESPACE = ("being terminated", "exceeded quota")

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Unposted:
    """An event that is neither posted nor dropped yet. `rank`: 0 goes first."""

    body: dict[str, Any]
    rank: int
    tries: int = 0

    @property
    def namespace(self) -> str:
        """Where it is posted."""
        return str(self.body["metadata"]["namespace"])


class Events:
    """Posts events in the background."""

    def __init__(
        self,
        api: KubeApi,
        *,
        node: str,
        utcnow: Callable[[], datetime],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        suffix: Callable[[], str],
        on_dropped: Callable[[], None],
        capacity: int = 1000,
        tries: int = 6,
    ) -> None:
        self._api = api
        self._node = node
        self._utcnow = utcnow
        self._monotonic = monotonic
        self._sleep = sleep
        self._suffix = suffix
        self._dropped = on_dropped
        self._tries = tries
        self._capacity = capacity
        self._unposted: dict[_Unposted, None] = {}
        self._of_pods: dict[str, dict[_Unposted, None]] = {}  # by namespace
        # Also holds what had to make room, until its turn.
        self._queue: asyncio.PriorityQueue[tuple[int, int, _Unposted]] = asyncio.PriorityQueue()
        self._serial = itertools.count()
        self._aside: dict[asyncio.Task[None], str] = {}  # value: the namespace, if it did not answer
        self._again = {hangs: asyncio.Semaphore(AT_ONCE_AGAIN) for hangs in (False, True)}
        self._finished = False
        self._buckets: dict[str, dict[str, TokenBucket]] = {}
        self._forbidden = TokenBucket(1, FORBIDDEN_TOLD_EVERY_S, monotonic)

    def record(self, pod: PodView, notice: Notice) -> None:
        """Log a notice, and queue its event; neither when the Pod has had too many with this reason."""
        buckets = self._buckets.setdefault(pod.uid, {})
        if notice.reason not in buckets:
            buckets[notice.reason] = TokenBucket(AT_ONCE, PERIOD_S, self._monotonic)
        if not buckets[notice.reason].take():
            self._dropped()
            return
        level = logging.INFO if notice.type == "Normal" else logging.WARNING
        logger.log(level, notice.message, extra={"pod": str(pod), "pod_uid": pod.uid, "reason": notice.reason})
        self._enqueue({"kind": "Pod", "name": pod.name, "namespace": pod.namespace, "uid": pod.uid}, notice)

    def record_node(self, notice: Notice) -> None:
        """Queue an event about this node; the caller has logged it."""
        # The uid is the node's name, as in kubelet's events: `kubectl describe node` looks for either.
        self._enqueue({"kind": "Node", "name": self._node, "uid": self._node}, notice)

    def forget(self, uid: str) -> None:
        """The Pod is gone: so are its token buckets."""
        self._buckets.pop(uid, None)

    async def run(self) -> None:
        """Post what is queued, for ever."""
        try:
            while True:
                _, _, unposted = await self._queue.get()
                if unposted not in self._unposted:  # it had to make room
                    continue
                if unposted.rank and unposted.namespace in self._aside.values():
                    # Finding out again that the namespace hangs would delay all events by half a minute.
                    self._set_aside(unposted, FIRST_DELAY_S, hangs=True)
                else:
                    await self._post(unposted)
        finally:
            for task in self._aside:
                task.cancel()

    async def finish(self, running: asyncio.Task[None], within_s: float = FINISH_S) -> None:
        """End `run`, which runs in the task `running`; try each remaining event once, and count the rest as dropped."""
        running.cancel()
        await asyncio.wait([running])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                tried = set[_Unposted]()
                while left := [each for each in self._unposted if each not in tried]:  # more may come meanwhile
                    unposted = min(left, key=lambda each: (each.rank, each.tries))
                    tried.add(unposted)
                    await self._try(unposted)
        if self._unposted:
            logger.warning("events were not posted before the end", extra={"events": len(self._unposted)})
        for unposted in list(self._unposted):
            self._drop(unposted)
        self._finished = True

    def _enqueue(self, about: Mapping[str, str], notice: Notice) -> None:
        rank, room = (0, ROOM_FOR_NODE) if about["kind"] == "Node" else (1, 0)
        is_full = len(self._unposted) >= self._capacity + room
        if self._finished or (is_full and not self._make_room(about)):
            self._dropped()
            return
        by = self._node
        body = event(
            about,
            event_type=notice.type,
            reason=notice.reason,
            message=notice.message,
            instance=by,
            host=by,
            now=self._utcnow(),
            suffix=self._suffix(),
        )
        unposted = _Unposted(body, rank)
        self._unposted[unposted] = None
        if rank:
            self._of_pods.setdefault(unposted.namespace, {})[unposted] = None
        self._queue.put_nowait((unposted.rank, next(self._serial), unposted))

    def _make_room(self, about: Mapping[str, str]) -> bool:
        """Drop another event for a new one, if another namespace has more of them: its newest."""
        most = max(self._of_pods.values(), key=len, default={})
        if about["kind"] == "Node" or len(self._of_pods.get(about["namespace"], ())) + 1 >= len(most):
            return False
        self._drop(next(reversed(most)))
        return True

    def _drop(self, unposted: _Unposted) -> None:
        if self._remove(unposted):
            self._dropped()

    def _remove(self, unposted: _Unposted) -> bool:
        """Whether it was still there: it may have had to make room meanwhile."""
        if unposted not in self._unposted:
            return False
        del self._unposted[unposted]
        if unposted.rank:
            left = self._of_pods[unposted.namespace]
            del left[unposted]
            if not left:
                del self._of_pods[unposted.namespace]
        return True

    async def _post(self, unposted: _Unposted) -> None:
        while unposted in self._unposted and (failure := await self._try(unposted)) is not None:
            if unposted.tries >= self._tries:
                if failure.status:
                    self._log_refusal(unposted, failure)
                self._drop(unposted)
                return
            delay_s = max(FIRST_DELAY_S * 2 ** (unposted.tries - 1), failure.retry_after_s)
            if failure.status or failure.reason == "Timeout":  # the namespace alone may be the cause
                self._set_aside(unposted, delay_s, hangs=not failure.status)
                return
            await self._sleep(delay_s)  # the API server does not answer: other events would fail as well

    def _set_aside(self, unposted: _Unposted, delay_s: float, *, hangs: bool) -> None:
        task = asyncio.get_running_loop().create_task(self._post_later(unposted, delay_s, hangs=hangs))
        self._aside[task] = unposted.namespace if hangs else ""
        task.add_done_callback(self._aside.pop)

    async def _post_later(self, unposted: _Unposted, delay_s: float, *, hangs: bool) -> None:
        await self._sleep(delay_s)
        # Apart from the queue, and from refused events: a namespace's webhook that hangs takes up to half a minute.
        async with self._again[hangs]:
            await self._post(unposted)

    async def _try(self, unposted: _Unposted) -> ApiError | None:
        """Post it, or drop it if it is refused for good. Returns the error if trying again may help."""
        unposted.tries += 1
        try:
            await self._api.create(f"/api/v1/namespaces/{unposted.namespace}/events", unposted.body)
        except ApiError as error:
            if error.reason != "AlreadyExists":  # else an earlier try posted it, and its answer was lost
                if not _is_final(error):
                    return error
                self._log_refusal(unposted, error)
                self._drop(unposted)
                return None
        self._remove(unposted)
        return None

    def _log_refusal(self, unposted: _Unposted, error: ApiError) -> None:
        about = unposted.body["involvedObject"]["name"]
        forbidden = None if _is_of_the_namespace(error) else refusal("create events", error)
        if forbidden and self._forbidden.take():
            logger.warning(forbidden, extra={"about": about})
        else:
            logger.info("event refused by the API server", extra={"about": about, "error": str(error)})


def _is_final(error: ApiError) -> bool:
    """Whether trying again is of no use: the namespace takes no event, or the API server rejects this event."""
    if error.status in _PERHAPS_TOO_EARLY:
        return _is_of_the_namespace(error)
    is_ours = HTTPStatus.BAD_REQUEST <= error.status < HTTPStatus.INTERNAL_SERVER_ERROR
    return is_ours and error.status not in _OF_THE_MOMENT


def _is_of_the_namespace(error: ApiError) -> bool:
    return any(sign in error.message for sign in _OF_THE_NAMESPACE)
