"""The HTTP server: connections bounded in number and time, for every client, and a drain that loses no request.

aiohttp reads HTTP and asyncio does TLS; this module manages the connections under them. With TLS each costs some 45 kB,
three times that while a body arrives; without a bound, a stranger who opens some thousands would exhaust the memory. At
the bound, the least useful connection is closed (`webhook.common.connections`).

On HTTP/1.1 a server cannot announce that it is about to close an idle connection, and Go's client does not repeat a
POST sent on a connection that was just closed: the admission fails. API servers always speak HTTP/1.1 to webhooks that
are Services (k8s.io/apiserver, pkg/util/webhook/client.go), and close connections themselves after 90 s idle
(k8s.io/apimachinery, SetTransportDefaults). So closing idle connections is left to them: the idle timeout here is
longer, and a drain goes on until the last connection is gone, and accepts new ones as long as some come.
"""

import asyncio
import asyncio.constants
import asyncio.sslproto
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from aiohttp import web, web_protocol
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpProcessingError, HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.streams import StreamReader

from webhook.common.connections import Connections
from webhook.common.logs import LogRateLimiter

logger = logging.getLogger(__name__)

# aiohttp reads 32 requests of a connection before it answers them, 16 MB, and has no parameter for it. None of our
# clients pipelines requests (Go's net/http does not, nor does Prometheus, which is written in Go).
web_protocol.MAX_MSG_QUEUE_SIZE = 1
# asyncio reads 256 KiB of TLS at once, into a buffer of that size for each connection, beside one of OpenSSL's that
# grows as large, and has no parameter for it either. A TLS record has 16 KiB, and few reviews are as large.
asyncio.sslproto.SSLProtocol.max_size = 16 * 1024
# If a client sends on while aiohttp reads nothing, asyncio buffers 256 KiB more.
asyncio.constants.FLOW_CONTROL_HIGH_WATER_SSL_READ = 16  # type: ignore[misc] # in KiB, read at each connection
# Without TLS, asyncio reads 256 KiB in one piece, which aiohttp keeps while it answers an earlier request. Set on our
# connections only, as importers of this module may read other sockets.
PLAIN_READ_BYTES: Final = 16 * 1024
# Of a request's head. API servers, kubelet and Prometheus send ten headers or less, proxies in between some more. The
# longest line is W3C's baggage of an instrumented client, 8 KiB plus its name, which API servers pass on to webhooks.
# aiohttp keeps a header as bytes and as text, in which a single emoji makes each character four bytes wide. With the
# part that is not counted, because it came together with the end of another request, that is 0.3 MB for a head; by
# aiohttp's own bounds it would be 5 MB.
LONGEST_LINE_BYTES: Final = 8 * 1024 + 64
MOST_HEADERS: Final = 24
MOST_HEAD_BYTES: Final = 16 * 1024
# Of answers that a client does not read; asyncio would keep 512 KiB of them with TLS. Beyond this bound the client's
# next request waits until it has read them. Another 64 KiB are kept below TLS, for which there is no parameter.
UNREAD_BYTES: Final = 16 * 1024
# While draining, as aiohttp reports no connection's end.
LOOK_S: Final = 0.05


class _Parser(HttpRequestParser):
    """aiohttp's parser, but a head is bounded as a whole, and input that raises any exception is no HTTP.

    yarl raises IndexError for `http://[]@/`, which nothing would catch: the request would get no answer, and as the
    second of two that come together it would leave the connection open for good.
    """

    __slots__ = ("_body", "_head_bytes")

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._body: StreamReader | None = None  # of the last request
        self._head_bytes = 0  # of a head that is coming

    def feed_data(self, data: bytes, *rest: Any) -> Any:
        """Read what has come. Raises HttpProcessingError."""
        is_head = self._body is None or self._body.is_eof()
        try:
            read = super().feed_data(data, *rest)
        except HttpProcessingError:
            raise
        except Exception as error:
            raise BadHttpMessage(f"Cannot be read: {error!r}") from error
        head_bytes = 0
        if read[0]:
            message, self._body = read[0][-1]
            self._head_bytes = 0
            head_bytes = len(message.path) + sum(len(name) + len(value) for name, value in message.raw_headers)
        elif is_head:
            head_bytes = self._head_bytes = self._head_bytes + len(data)
        if head_bytes > MOST_HEAD_BYTES:
            raise BadHttpMessage(f"A head of more than {MOST_HEAD_BYTES} bytes.")
        return read


web_protocol.HttpRequestParser = _Parser  # type: ignore[attr-defined] # each connection makes one


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a stranger may take. Times in seconds."""

    # 25 MB, and 100 MB with all bodies that are let in; 425 MB where each has two of the largest heads and reads no
    # answer, as only strangers do. An API server has one per request in flight, by default up to 200 mutating ones, and
    # keeps 25 of them. Connections beyond the bound wait in the kernel's queue.
    connections: int = 512
    # The length of that queue: connections beyond it must retry, and in a long queue clients may give up before their
    # turn.
    backlog: int = 512
    handshake_s: float = 5.0
    # A newcomer's time at the bound, from the TCP connection to its first request; a burst of 512 handshakes takes as
    # long on a slow CPU. It limits how fast a flood of connections is let in, and out again.
    first_request_s: float = 1.0
    # For a connection without a whole request head, silent or slow: more than the 90 s of API servers.
    idle_s: float = 120.0
    # For a client that reads nothing of its answers. No API server waits longer for an answer.
    unread_s: float = 30.0
    # How long the rest of a body is read after the answer, so that the client can see the answer.
    linger_s: float = 2.0
    # For answers in flight when a drain is over, and as long again for what they are cancelled in (aiohttp).
    finish_s: float = 5.0


# For the ports of probes and metrics. Without TLS the first request comes with the connection, so a flood can be let
# in, and out again, as fast as the loop can: a shorter time made it no faster.
PLAIN_HTTP: Final = Bounds(first_request_s=0.1, backlog=256)

Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class BoundedServer:
    """Serves by a handler: aiohttp's low-level server, as an application's routes cost a tenth of an admission."""

    def __init__(self, handler: Handler, bounds: Bounds | None = None) -> None:
        self._bounds = bounds or Bounds()
        self._handler = handler
        self._server = web.Server(
            self._handle,
            request_factory=_request,
            access_log=None,
            logger=_HttpLog(),
            keepalive_timeout=self._bounds.idle_s,
            lingering_time=self._bounds.linger_s,
            max_line_size=LONGEST_LINE_BYTES,
            max_field_size=LONGEST_LINE_BYTES,
            max_headers=MOST_HEADERS,
            # API servers compress nothing, and a small compressed body may decompress to a large one.
            auto_decompress=False,
        )
        self._connections = Connections(self._server, self._bounds.connections, self._bounds.first_request_s)
        self._listening: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._accepted = 0  # so far
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def listen(self, host: str | None, port: int, context: Callable[[], ssl.SSLContext] | None = None) -> None:
        """Serve on an address, or on all, from now on. Raises OSError.

        With TLS if `context` is given, which is called for each new connection.
        """
        loop = asyncio.get_running_loop()
        # asyncio binds; accepting is done here, as asyncio would accept without a bound.
        bound = await loop.create_server(asyncio.Protocol, host, port, start_serving=False)
        self._listening = [each.dup() for each in bound.sockets]
        bound.close()
        for listening in self._listening:
            listening.setblocking(False)
            # Inherited by its connections. The kernel then ends them, whatever asyncio and aiohttp wait for.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._bounds.unread_s * 1000))
            listening.listen(self._bounds.backlog)
            task = loop.create_task(self._accept(listening, context))
            task.add_done_callback(self._on_end)
            self._accepting.append(task)

    async def accepting(self) -> None:
        """Wait until no connection is accepted any more, for callers that must stop then. Raises the error that did."""
        await asyncio.shield(self._ended)

    async def drain(
        self, quiet_s: float, longest_s: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        """Wait until no connection has come or been open for `quiet_s`, at most `longest_s`, then stop accepting.

        Until then new connections are served: how long clients still see this endpoint cannot be known here. The caller
        must already answer with `Connection: close`.
        """
        # In looks: while this process does not get the CPU, connections may be waiting for it.
        seen, quiet = self._accepted, 0
        try:
            async with asyncio.timeout(longest_s):
                while (number := self._connections.number) or quiet * LOOK_S < quiet_s:
                    await sleep(LOOK_S)
                    quiet += 1
                    if number or seen != self._accepted:
                        seen, quiet = self._accepted, 0
        except TimeoutError:
            if self._connections.number:
                logger.warning("closing %d connections that clients left open", self._connections.number)
        await self._stop_accepting()

    async def close(self) -> None:
        """End at once, but for the answers in flight."""
        await self._stop_accepting()
        self._connections.cancel_handshakes()
        self._server.pre_shutdown()
        await self._server.shutdown(self._bounds.finish_s)

    async def _stop_accepting(self) -> None:
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for listening in self._listening:
            listening.close()
        self._accepting, self._listening = [], []

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if self._ended.done():
            return
        if task.cancelled():
            self._ended.set_result(None)
        elif (error := task.exception()) is not None:
            self._ended.set_exception(error)

    async def _accept(self, listening: socket.socket, context: Callable[[], ssl.SSLContext] | None) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:  # above all when out of file descriptors: closing some takes a while
                logger.warning("cannot accept a connection: %s", error)
                await asyncio.sleep(0.1)
                continue
            self._accepted += 1
            try:
                await self._connections.wait_for_room()
            except BaseException:
                connection.close()
                raise
            self._connections.handshake(connection, self._handshake(connection, context() if context else None))

    async def _handshake(self, connection: socket.socket, context: ssl.SSLContext | None) -> None:
        """The handshake, after which aiohttp has the connection."""
        try:
            transport, protocol = await asyncio.get_running_loop().connect_accepted_socket(
                self._server,
                connection,
                ssl=context,
                ssl_handshake_timeout=self._bounds.handshake_s if context else None,
                ssl_shutdown_timeout=self._bounds.linger_s if context else None,
            )
        except OSError as error:  # TLS failed, or the client is gone
            logger.debug("no TLS with a client: %s", error)
            # asyncio's frames and the error refer to each other: the cycle would hold 300 kB for a while.
            error.__traceback__ = None
        else:
            if context is None:  # nothing is read yet: the loop polls the socket after this
                transport.max_size = PLAIN_READ_BYTES  # type: ignore[attr-defined] # no parameter
            transport.set_write_buffer_limits(UNREAD_BYTES)
            self._connections.established(protocol, connection)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Keep account of which connections have a request under way."""
        self._connections.request_started(request)
        try:
            return await self._handler(request)
        finally:
            self._connections.request_finished(request.protocol)
            if "Transfer-Encoding" in request.headers:
                # None of our clients sends chunks, and reading tiny ones takes long: no linger. The answer is sent by
                # the loop's next round.
                asyncio.get_running_loop().call_soon(request.protocol.force_close)


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    """A request for the path alone, without the scheme and host of an absolute URL.

    aiohttp decodes a host where nothing catches its exceptions (`http://xn--a/`): there would be no answer, and the
    connection would stay open.
    """
    if message.url.absolute:
        message = message._replace(url=message.url.relative())
    return web.BaseRequest(message, payload, protocol, writer, task, asyncio.get_running_loop())


class _HttpLog(logging.LoggerAdapter[logging.Logger]):
    """aiohttp's log. A request that is no HTTP gets a line without the traceback, and such lines are rate-limited."""

    def __init__(self) -> None:
        super().__init__(logging.getLogger("aiohttp.server"))
        self._no_http = LogRateLimiter(time.monotonic)

    def log(self, level: int, msg: object, *args: object, **keywords: Any) -> None:
        """As of a logger: aiohttp's `exception` and `debug` come here."""
        error = keywords.get("exc_info")
        if not isinstance(error, HttpProcessingError):
            self.logger.log(level, msg, *args, **keywords)
        elif self.isEnabledFor(level) and (more := self._no_http.admit()) is not None:
            self.logger.log(level, "no HTTP from a client: %s", error.message.splitlines()[0], extra=more)
