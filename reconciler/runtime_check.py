"""Checks the connection to the container runtime; if it is gone, /readyz and an event on the Node say so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from reconciler.node_problems import report_node_problem
from reconciler.nri.transport import NriPlugin
from reconciler.report import Notice, Reason

HELD_UP = "Until then containerd starts and stops nothing else on this node; limits in force are kept and followed"
AWAY = "Pods that start before it is run without their limits"


class RuntimeCheck:
    """Checks the connection periodically; reports when it is gone for long, and once when it is back."""

    def __init__(
        self,
        runtime: NriPlugin,
        *,
        record_node: Callable[[Notice], None],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._runtime = runtime
        self._record_node = record_node
        self._sleep = sleep

    def why_not_ready(self) -> str | None:
        """What is in the way, and what to look at; None while connected."""
        if self._runtime.connected:
            return None
        so_far = "registered at" if self._runtime.registered else "not connected to"
        return f"{so_far} the container runtime's NRI socket {self._runtime.socket_path}: {self._runtime.trouble}"

    async def run(self) -> None:
        """Check for ever."""
        await report_node_problem(
            self.why_not_ready,
            begun=lambda why: Notice(Reason.RUNTIME_AWAY, f"{why}. {HELD_UP if self._runtime.registered else AWAY}"),
            over=Notice(Reason.RUNTIME_BACK, "connected to the container runtime again"),
            record_node=self._record_node,
            sleep=self._sleep,
        )
