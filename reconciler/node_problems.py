"""What lasts on this node for longer than a restart takes: /readyz says so, and events on the Node, and of its end too.

No connection to the container runtime, no right to watch Pods, or a port that somebody else has.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from reconciler.forbidden import refusal
from reconciler.http import Ports
from reconciler.nri.transport import NriPlugin
from reconciler.report import Notice, Reason
from webhook.common.reflector import Reflector

POLL_S = 10.0
POLLS_BEFORE_EVENT = 3
"""A restart takes some seconds: only a problem that lasts longer is reported."""
POLLS_BEFORE_REPEAT = 300
"""A lasting problem is reported again then, as the API server forgets events after an hour (--event-ttl)."""

HELD_UP = "Until then the runtime may start and stop nothing else on this node; limits in force are kept and followed"
AWAY = "Until it is connected, Pods start without their limits, or not at all, as they ask"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeProblem:
    """A problem that may come and go. `lasting` is what is wrong at the moment, and what to do; None if nothing is.

    `begun` and `over` are the events. `why_not_ready` may leave out what is no reason to be unready.
    """

    lasting: Callable[[], str | None]
    begun: Callable[[str], Notice]
    over: Notice
    why_not_ready: Callable[[], str | None]

    async def run(self, record_node: Callable[[Notice], None], sleep: Callable[[float], Awaitable[None]]) -> None:
        """Poll for ever; record `begun` for what lasts, repeatedly while it does, and `over` once at its end."""
        polls = 0
        while True:
            await sleep(POLL_S)
            what = self.lasting()
            told = None
            if what is None and polls >= POLLS_BEFORE_EVENT:
                told = self.over
            polls = polls + 1 if what else 0
            if what and polls % POLLS_BEFORE_REPEAT == POLLS_BEFORE_EVENT:
                told = self.begun(what)
            if told:
                logger.warning(told.message)
                record_node(told)


def _sentence(text: str) -> str:
    return text if text.endswith("?") else f"{text}."


def of_runtime(runtime: NriPlugin) -> NodeProblem:
    """No connection to the container runtime, or it has not sent its list of Pods yet."""

    def lasting() -> str | None:
        if runtime.connected:
            return None
        so_far = "registered at" if runtime.registered else "not connected to"
        return f"{so_far} the container runtime's NRI socket {runtime.socket_path}: {runtime.trouble}"

    return NodeProblem(
        lasting,
        begun=lambda why: Notice(Reason.RUNTIME_AWAY, f"{_sentence(why)} {HELD_UP if runtime.registered else AWAY}"),
        over=Notice(Reason.RUNTIME_BACK, "connected to the container runtime again"),
        why_not_ready=lasting,
    )


def of_watch(reflector: Reflector) -> NodeProblem:
    """The API server does not let us watch Pods.

    A server that cannot be reached is no reason to be unready: an outage would make every node's reconciler unready.
    Nor is a right that is revoked later: the listed Pods are known, and limits hold.
    """

    def lasting() -> str | None:
        return refusal("list and watch Pods", reflector.refused) if reflector.refused else None

    return NodeProblem(
        lasting,
        begun=lambda why: Notice(
            Reason.WATCH_REFUSED, f"{why}; until then changes of the annotations of Pods are not followed"
        ),
        over=Notice(Reason.WATCH_CONNECTED, "the annotations of Pods are followed again"),
        why_not_ready=lambda: None if reflector.synced.is_set() else lasting(),
    )


def of_ports(ports: Ports) -> NodeProblem:
    """A port is taken, or its address is not the node's."""
    return NodeProblem(
        lasting=lambda: ports.trouble,
        begun=lambda why: Notice(Reason.CANNOT_LISTEN, f"{why}. It is tried again, and limits are set meanwhile"),
        over=Notice(Reason.LISTENING, "the reconciler listens on all its ports again"),
        why_not_ready=lambda: ports.trouble,
    )
