"""Plain HTTP for probes and metrics, of both programs."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest

from webhook.common.contract import quoted

# Metrics are generated no more often, however many clients ask: that takes the loop milliseconds, and the reconciler
# reads its own from the kernel, while Pods wait for their limits.
METRICS_CACHE_S: Final = 0.25


class Pages:
    """/healthz answers while the loop runs, /readyz says what is missing, /metrics in Prometheus' format."""

    def __init__(
        self,
        why_not_ready: Callable[[], str | None],
        registry: CollectorRegistry,
        before_scrape: Callable[[], Awaitable[None]] | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._why_not_ready = why_not_ready
        self._registry = registry
        self._before_scrape = before_scrape
        self._monotonic = monotonic
        self._metrics, self._made_s = b"", float("-inf")
        self._making = asyncio.Lock()

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer one request."""
        if request.method not in {"GET", "HEAD"}:
            return method_not_allowed("GET, HEAD")
        match request.path:
            case "/healthz":
                return web.Response(text="ok\n")
            case "/readyz":
                reason = self._why_not_ready()
                return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)
            case "/metrics":
                return web.Response(body=await self._scraped(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
            case _:
                return not_found(request, "/healthz, /readyz, /metrics")

    async def _scraped(self) -> bytes:
        async with self._making:
            if self._monotonic() - self._made_s >= METRICS_CACHE_S:
                if self._before_scrape is not None:
                    await self._before_scrape()
                self._metrics, self._made_s = generate_latest(self._registry), self._monotonic()
            return self._metrics


def not_found(request: web.BaseRequest, pages: str) -> web.Response:
    """The answer to a request for an unknown path, 404."""
    return web.Response(status=404, text=f"ipvlan-bandwidth: there is no {quoted(request.path)} here, only {pages}\n")


def method_not_allowed(methods: str) -> web.Response:
    """The answer to a request by a method that is not one of these, 405."""
    return web.Response(status=405, text=f"ipvlan-bandwidth: only {methods}\n", headers={"Allow": methods})
