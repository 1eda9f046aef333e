"""Says on the Node that the container runtime cannot be reached: without it no starting Pod is limited in time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from reconciler.lasting import tell_what_lasts
from reconciler.report import Notice, Reason


class RuntimeCheck:
    """Looks at the connection now and then; tells once when it is gone for long, and once when it is back."""

    def __init__(
        self,
        is_connected: Callable[[], bool],
        *,
        trouble: Callable[[], str],
        socket_path: str,
        tell_node: Callable[[Notice], None],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._is_connected, self._trouble, self._socket_path = is_connected, trouble, socket_path
        self._tell_node, self._sleep = tell_node, sleep

    def why_not_ready(self) -> str | None:
        """What is in the way, and what to look at; None while connected."""
        if self._is_connected():
            return None
        return f"not connected to the container runtime's NRI socket {self._socket_path}: {self._trouble()}"

    async def run(self) -> None:
        """Look for ever."""
        await tell_what_lasts(
            self.why_not_ready,
            begun=lambda why: Notice(
                Reason.RUNTIME_AWAY, f"{why}. Pods that start before it is run without their limits"
            ),
            over=Notice(Reason.RUNTIME_BACK, "connected to the container runtime again"),
            tell_node=self._tell_node,
            sleep=self._sleep,
        )
