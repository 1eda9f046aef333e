"""Plain HTTP for probes and metrics: a port that whoever reaches the node can ask, and one that only the node can.

Kubelet asks the latter. Whoever floods the former keeps kubelet's connections from it as well as others', and kubelet
ends whom it does not hear from: Pods that start meanwhile would run without their limits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from reconciler.kernel.errors import ShapingError
from webhook.bounded import PLAIN_HTTP, BoundedServer, Handler

STRANGERS: Final = replace(PLAIN_HTTP, connections=64, finish_s=1.0)
KUBELET: Final = replace(STRANGERS, connections=16)

# On nodes of IPv6 alone too: Linux has no IPv6 without IPv4, and gives `lo` this address by itself.
LOOPBACK: Final = "127.0.0.1"

MADE_AGAIN_S = 0.25
"""Metrics are read from the kernel no more often, however many ask: those who wait for their limits come first."""


class Pages:
    """/healthz answers while the loop runs, /readyz says what is missing, /metrics in Prometheus' format."""

    def __init__(
        self,
        *,
        why_not_ready: Callable[[], str | None],
        before_scrape: Callable[[], Awaitable[None]],
        registry: CollectorRegistry,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._why_not_ready, self._before_scrape, self._registry = why_not_ready, before_scrape, registry
        self._monotonic = monotonic
        self._metrics, self._made_s = b"", float("-inf")
        self._making = asyncio.Lock()

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer one request."""
        if request.method not in {"GET", "HEAD"}:
            return web.Response(status=405, text="only GET, HEAD\n", headers={"Allow": "GET, HEAD"})
        match request.path:
            case "/healthz":
                return web.Response(text="ok\n")
            case "/readyz":
                reason = self._why_not_ready()
                return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)
            case "/metrics":
                return web.Response(body=await self._scraped(), headers={"Content-Type": CONTENT_TYPE_LATEST})
            case _:
                return web.Response(status=404, text="there are only /healthz, /readyz, /metrics\n")

    async def _scraped(self) -> bytes:
        async with self._making:
            if self._monotonic() - self._made_s >= MADE_AGAIN_S:
                await self._before_scrape()
                self._metrics, self._made_s = generate_latest(self._registry), self._monotonic()
            return self._metrics


async def listen(handler: Handler, host: str, port: int, probe_port: int) -> list[BoundedServer]:
    """Serve on both ports from now on: on `host`, or on all addresses, and on loopback. Raises ShapingError."""
    servers: list[BoundedServer] = []
    for bounds, address, number, use, remedy in (
        (STRANGERS, host, port, "metrics", "--port and --listen name"),
        (KUBELET, LOOPBACK, probe_port, "kubelet's probes", "--probe-port names"),
    ):
        server = BoundedServer(handler, bounds)
        try:
            await server.listen(address or None, number)
        except OSError as error:
            for other in servers:
                await other.close()
            where = f"port {number}" + (f" of {address}" if address else "")
            raise ShapingError(f"cannot listen on {where} for {use}: {error.strerror}; {remedy} another") from error
        servers.append(server)
    return servers
