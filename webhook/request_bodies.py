"""Receives the bodies of AdmissionReviews: each bounded in size and time, and all of them together.

At the bound for all, the body with the most bytes times seconds is evicted, so that senders of much, or slow ones, do
not block others: an API server's bodies arrive within milliseconds.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from webhook.common.contract import quoted

# A review of an UPDATE carries two Pods, and an API server takes no request over 3 MiB.
LARGEST_REVIEW_BYTES: Final = 8 * 2**20
# All bodies being received: a hundred senders of the largest would fill the memory.
ALL_BODIES_BYTES: Final = 32 * 2**20
# An API server waits no longer than `timeoutSeconds` for an answer, 5 by our manifest and at most 30.
BODY_S: Final = 10.0

_TOO_LARGE: Final = f"an AdmissionReview of more than {LARGEST_REVIEW_BYTES} bytes"
_TOO_MANY: Final = "too many large AdmissionReviews at once, try again"


class RequestError(Exception):
    """A request that is not read to its end, or not at all: the HTTP status, and as a string why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(eq=False, slots=True)
class _IncomingBody:
    """A body on its way, and the timer that ends the wait for it."""

    limit: asyncio.Timeout
    began_s: float
    received: bytearray = field(default_factory=bytearray)
    evicted: bool = False

    def cost(self, now_s: float) -> float:
        """Bytes times seconds: what it takes from others."""
        return len(self.received) * (now_s - self.began_s)

    def evict(self) -> None:
        """Free the memory now, and have its reader end as soon as it can."""
        self.evicted, self.received = True, bytearray()
        if not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time())


class RequestBodies:
    """All bodies that are on their way."""

    def __init__(self) -> None:
        self._coming: set[_IncomingBody] = set()

    async def read(self, request: web.BaseRequest) -> bytes | bytearray:
        """The body of a request. Raises RequestError."""
        if request.content_type != "application/json":
            raise RequestError(415, f"expected Content-Type application/json, got {request.content_type}")
        if (coding := request.headers.get("Content-Encoding", "identity")) != "identity":
            raise RequestError(415, f"expected no Content-Encoding, got {quoted(coding)}")
        if request.content_length is None:
            # Chunks of a byte take a hundred times as long to read. API servers know the length: client-go makes
            # requests of whole bodies (rest/request.go, newHTTPRequest).
            raise RequestError(411, "expected a Content-Length, as API servers send it")
        if request.content_length > LARGEST_REVIEW_BYTES:
            raise RequestError(413, _TOO_LARGE)
        try:
            if request.content.is_eof():
                # It came with the head, as that of most Pods does: a timer would cost a tenth of the admission.
                return request.content.read_nowait()
            return await self._receive(request)
        except (
            OSError,
            RuntimeError,
            web.RequestPayloadError,
        ) as error:  # as aiohttp and TLS report a lost connection
            raise RequestError(400, "the request's body breaks off") from error

    async def _receive(self, request: web.BaseRequest) -> bytearray:
        coming = _IncomingBody(asyncio.timeout(BODY_S), asyncio.get_running_loop().time())
        self._coming.add(coming)
        try:
            async with coming.limit:
                async for chunk in request.content.iter_any():
                    self._take(coming, chunk)
        except BaseException as error:
            # aiohttp's reader keeps the error, and the error our frame, until the garbage collector runs.
            coming.received = bytearray()
            if not isinstance(error, TimeoutError):
                raise
            if coming.evicted:
                raise RequestError(503, _TOO_MANY) from error
            raise RequestError(408, f"the request's body did not come within {BODY_S:g} s") from error
        finally:
            self._coming.discard(coming)
        if coming.evicted:  # at its very end
            raise RequestError(503, _TOO_MANY)
        return coming.received

    def _take(self, coming: _IncomingBody, chunk: bytes) -> None:
        if coming.evicted:
            raise TimeoutError
        coming.received += chunk
        while sum(len(each.received) for each in self._coming) > ALL_BODIES_BYTES:
            now_s = asyncio.get_running_loop().time()
            max(self._coming, key=lambda each: each.cost(now_s)).evict()
        if coming.evicted:
            raise TimeoutError
