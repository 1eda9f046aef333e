"""Serves probes and metrics: one port for any client that reaches the node, and one on loopback for the node only.

Kubelet uses the latter. A flood of the former shuts out kubelet's connections to it as well as others', and kubelet
kills a container whose probe gets no answer: Pods that start meanwhile would run without their limits.

Any Pod in the host's network can take either port, so no other work waits for them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from webhook.common.http_server import PLAIN_HTTP, BoundedServer, Handler

METRICS_BOUNDS: Final = replace(PLAIN_HTTP, connections=64, finish_s=1.0)
PROBE_BOUNDS: Final = replace(METRICS_BOUNDS, connections=16)

# Works on IPv6-only nodes too: Linux has no IPv6 without IPv4, and gives `lo` this address by itself.
LOOPBACK: Final = "127.0.0.1"

# As often as kubelet asks at a start.
AGAIN_S: Final = 2.0

logger = logging.getLogger(__name__)


class Ports:
    """Both ports: metrics on `host`, or on all addresses, and probes on loopback. One that is taken is tried again."""

    def __init__(self, host: str, port: int, probe_port: int) -> None:
        self._host, self._port, self._probe_port = host, port, probe_port
        self._troubles: dict[str, str] = {}

    @property
    def trouble(self) -> str | None:
        """Why it does not listen, and what to do; None where it does."""
        return "; ".join(self._troubles.values()) or None

    async def run(self, handler: Handler) -> None:
        """Serve for ever."""
        for_metrics = partial(BoundedServer, handler, METRICS_BOUNDS)
        for_probes = partial(BoundedServer, handler, PROBE_BOUNDS)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._serve(for_metrics, self._host, self._port, "metrics", "--port and --listen name"))
            group.create_task(
                self._serve(for_probes, LOOPBACK, self._probe_port, "kubelet's probes", "--probe-port names")
            )

    async def _serve(self, make: Callable[[], BoundedServer], address: str, number: int, use: str, remedy: str) -> None:
        where = f"port {number}" + (f" of {address}" if address else "")
        while True:
            server = make()
            try:
                await server.listen(address or None, number)
                if self._troubles.pop(use, None):
                    logger.info("listening", extra={"where": where, "use": use})
                await server.accepting()
            except OSError as error:
                trouble = f"cannot listen on {where} for {use}: {error.strerror or error}; {remedy} another"
                if self._troubles.get(use) != trouble:
                    logger.error(trouble)
                self._troubles[use] = trouble
            finally:
                await server.close()
            await asyncio.sleep(AGAIN_S)
