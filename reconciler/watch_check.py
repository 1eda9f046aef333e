"""Checks that the API server lets us watch Pods; if not, /readyz, a metric and an event on the Node report it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from prometheus_client import Gauge

from reconciler.forbidden import refusal
from reconciler.node_problems import report_node_problem
from reconciler.report import Notice, Reason
from webhook.common.reflector import Reflector


class WatchCheck:
    """Checks the state of the watch on Pods.

    A server that cannot be reached is no reason to be unready: an outage would make every node's reconciler unready.
    Nor is a right that is revoked later: the listed Pods are known, and limits hold.
    """

    def __init__(
        self,
        reflector: Reflector,
        *,
        gauge: Gauge,
        record_node: Callable[[Notice], None],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._reflector = reflector
        self._record_node = record_node
        self._sleep = sleep
        gauge.set_function(lambda: reflector.connected)

    def why_not_ready(self) -> str | None:
        """What is forbidden, and what to do; None when nothing is, or Pods were listed before."""
        return None if self._reflector.synced.is_set() else self._refusal()

    async def run(self) -> None:
        """Report refusals that last; runs for ever."""
        await report_node_problem(
            self._refusal,
            begun=lambda why: Notice(
                Reason.WATCH_REFUSED, f"{why}; until then changes of the annotations of Pods are not followed"
            ),
            over=Notice(Reason.WATCH_CONNECTED, "the annotations of Pods are followed again"),
            record_node=self._record_node,
            sleep=self._sleep,
        )

    def _refusal(self) -> str | None:
        refused = self._reflector.refused
        return refusal("list and watch Pods", refused) if refused else None
