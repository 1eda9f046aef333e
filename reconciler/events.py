"""Events on Pods and on the node: handed over at once, posted in the background, never waited for.

Shaping must not depend on the API server, so a queue of bounded length stands between, and what does not fit, or
cannot be posted in a few tries, is dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any, Protocol

from reconciler.pods import PodView
from reconciler.report import Notice
from reconciler.rights import refusal
from webhook.budget import Budget
from webhook.event import Told, event
from webhook.kubeapi import ApiError

# Of one reason and Pod, so that no Pod floods the API server, and one that has its shaping repaired all the time still
# hears that its limit changed.
AT_ONCE, PERIOD_S = 20, 30.0

# Without the right to create events none is ever seen: that is told in the log, but not with each of them.
FORBIDDEN_TOLD_EVERY_S = 3600.0

log = logging.getLogger(__name__)


class EventApi(Protocol):
    """The one call of the API server that posting needs."""

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST a new object."""
        ...


class Events:
    """Posts events in the background."""

    def __init__(
        self,
        api: EventApi,
        *,
        node: str,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        suffix: Callable[[], str],
        on_dropped: Callable[[], None],
        capacity: int = 1000,
        tries: int = 5,
    ) -> None:
        self._api, self._node, self._clock, self._monotonic = api, node, clock, monotonic
        self._sleep, self._suffix, self._dropped, self._tries = sleep, suffix, on_dropped, tries
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(capacity)
        self._budgets: dict[str, dict[str, Budget]] = {}
        self._forbidden = Budget(1, FORBIDDEN_TOLD_EVERY_S, monotonic)

    def tell(self, pod: PodView, notice: Notice) -> None:
        """Log a notice, and queue its event; neither when the Pod has had too many of the kind."""
        budgets = self._budgets.setdefault(pod.uid, {})
        if notice.reason not in budgets:
            budgets[notice.reason] = Budget(AT_ONCE, PERIOD_S, self._monotonic)
        if not budgets[notice.reason].take():
            self._dropped()
            return
        level = logging.INFO if notice.type == "Normal" else logging.WARNING
        log.log(level, notice.message, extra={"pod": str(pod), "pod_uid": pod.uid, "reason": notice.reason})
        self._hand_over({"kind": "Pod", "name": pod.name, "namespace": pod.namespace, "uid": pod.uid}, notice)

    def tell_node(self, notice: Notice) -> None:
        """Queue an event about this node; who tells it has logged it."""
        # It names the node in the place of its uid, as kubelet does: `kubectl describe node` looks for either.
        self._hand_over({"kind": "Node", "name": self._node, "uid": self._node}, notice)

    def forget(self, uid: str) -> None:
        """The Pod is gone: so is its budget."""
        self._budgets.pop(uid, None)

    async def run(self) -> None:
        """Post what is queued, for ever."""
        while True:
            await self._post(await self._queue.get())

    def _hand_over(self, about: Mapping[str, str], notice: Notice) -> None:
        told = Told(notice.type, notice.reason, notice.message)
        by = self._node
        try:
            self._queue.put_nowait(event(about, told, instance=by, host=by, now=self._clock(), suffix=self._suffix()))
        except asyncio.QueueFull:
            self._dropped()

    async def _post(self, body: dict[str, Any]) -> None:
        about = body["involvedObject"]["name"]
        delay_s = 1.0
        for _ in range(self._tries):
            try:
                await self._api.create(f"/api/v1/namespaces/{body['metadata']['namespace']}/events", body)
            except ApiError as error:
                if error.status == HTTPStatus.CONFLICT:  # it was posted by a try whose answer was lost
                    return
                # Refused for good: the namespace is going, or the event is not to the API server's liking.
                is_ours = HTTPStatus.BAD_REQUEST <= error.status < HTTPStatus.INTERNAL_SERVER_ERROR
                if is_ours and error.status != HTTPStatus.TOO_MANY_REQUESTS:
                    self._log_refusal(about, error)
                    break
                await self._sleep(delay_s)
                delay_s *= 2
            else:
                return
        self._dropped()

    def _log_refusal(self, about: str, error: ApiError) -> None:
        # A namespace that is going refuses with 403 too, which is as it should be.
        forbidden = None if "being terminated" in error.message else refusal("create events", error)
        if forbidden and self._forbidden.take():
            log.warning(forbidden, extra={"about": about})
        else:
            log.info("event refused by the API server", extra={"about": about, "error": str(error)})
