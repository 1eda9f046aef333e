"""The plain HTTP port for probes and metrics, which whoever reaches the node can ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

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
