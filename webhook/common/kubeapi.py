"""The Kubernetes API as plain JSON: get, create, replace, patch and watch, with nothing generated in between.

Why not the client library all the way: importing `kubernetes_asyncio` brings its 768 model classes, 39 MB resident
and 0.4 s of CPU (36.1.0 on Python 3.11), on every node, for objects that are read as dictionaries anyway.
"""

import asyncio
import json
import logging
import os
import re
import socket
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Collection, Mapping
from typing import Any, Final, Self

import aiohttp

from webhook.common.endpoint import Endpoint, NoTokenError, from_kubeconfig, in_cluster
from webhook.common.list_decoder import MalformedError, items_of

_CONNECT_TIMEOUT_S: Final = 10.0
_CALL_TIMEOUT_S: Final = 30.0
# A long list takes time to read, and an API server gives up after its --request-timeout.
_LIST_TIMEOUT_S: Final = 60.0
# A watch that lasts this much longer than it asked for hangs in a server that answers nothing.
_WATCH_GRACE_S: Final = 30.0
# With bookmarks allowed, the API server sends something every minute in which any object of the kind changed, whichever
# watch selects it (KEP-956; tried on 1.37). A watch that is silent for more than two minutes goes to a server that
# hangs, over a connection that is open at one end only, or from a resourceVersion that the server has yet to reach, as
# after etcd was restored from a backup; that is not refused (tried too). Or nothing changes at all: a new watch costs
# little.
WATCH_SILENCE_S: Final = 150.0
# A dead peer is noticed after 15 + 3 * 10 s of silence, as by client-go's HTTP/2 pings (30 s + 15 s).
_KEEPALIVE_IDLE_S: Final = 15
_KEEPALIVE_INTERVAL_S: Final = 10
_KEEPALIVE_PROBES: Final = 3
# etcd refuses objects over 1.5 MiB; a watch event carries one, as JSON.
_LONGEST_EVENT_BYTES: Final = 16 * 2**20
_SECONDS: Final = re.compile(r"[0-9]{1,8}")
_LONGEST_RETRY_AFTER_S: Final = 60.0


logger = logging.getLogger(__name__)


class ApiError(Exception):
    """The API server said no, or could not be reached.

    `status` is the HTTP status, or the `code` of a Status object within a watch, and 0 when there was no answer.
    `reason` is machine-readable: `NotFound`, `Conflict`, `Expired`, `Unreachable`, `Timeout` for a call without an
    answer, as a rule from a server that can be reached, or `Silent` for a watch that got nothing for too long.
    `message` is for people. `causes` are the machine-readable causes, if any. `retry_after_s`: how long the server
    wants to be left alone, which is bounded, as anything may stand there.
    """

    def __init__(
        self, status: int, reason: str, message: str, causes: Collection[str] = (), retry_after_s: float = 0
    ) -> None:
        super().__init__(f"{message} ({status} {reason})" if status else f"{message} ({reason})")
        self.status = status
        self.reason = reason
        self.message = message
        self.causes = causes
        self.retry_after_s = min(max(retry_after_s, 0), _LONGEST_RETRY_AFTER_S)


class KubeApi:
    """Calls of the Kubernetes API; paths begin with `/api` or `/apis`, bodies and answers are JSON as dictionaries.

    Every method raises ApiError, and nothing else, when the server refuses, fails or cannot be reached.
    """

    def __init__(self, endpoint: Endpoint, *, user_agent: str, watch_silence_s: float = WATCH_SILENCE_S) -> None:
        self._endpoint = endpoint
        self._watch_silence_s = watch_silence_s
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=_socket_with_keepalive),
            headers={"User-Agent": user_agent, "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(total=_CALL_TIMEOUT_S, sock_connect=_CONNECT_TIMEOUT_S),
        )

    @classmethod
    async def connect(cls, *, user_agent: str, environ: Mapping[str, str] = os.environ) -> Self:
        """With the Pod's service account, or outside of Pods with a kubeconfig; opens no connection yet.

        Raises ConfigurationError when there is neither.
        """
        return cls(in_cluster(environ) or await from_kubeconfig(environ), user_agent=user_agent)

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Read an object."""
        return await self._call("GET", path, params)

    async def read_list(self, path: str, params: Mapping[str, str], take: Callable[[Any], None]) -> dict[str, Any]:
        """Read a list: call `take` with each item, of whatever type, and return the rest of the list.

        Other tasks run in between, and memory is needed for one item. When this raises, `take` may have got some items.
        """
        timeout = aiohttp.ClientTimeout(
            total=_LIST_TIMEOUT_S, sock_connect=_CONNECT_TIMEOUT_S, sock_read=_CALL_TIMEOUT_S
        )
        rest: dict[str, Any] = {}
        try:
            async with await self._send("GET", path, params, timeout=timeout) as response:
                async for item in items_of(response.content.iter_any(), rest):
                    take(item)
                    del item  # it must not stay while the next one is read
                    await asyncio.sleep(0)
        except MalformedError as error:
            raise ApiError(0, "NotJSON", f"the API server's answer to GET {path} is no JSON object: {error}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable("GET", path, error) from error
        return rest

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object in the collection at `path`; status 409, `AlreadyExists`, when it is there."""
        return await self._call("POST", path, None, body)

    async def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace an object; status 409, `Conflict`, when its `metadata.resourceVersion` is no longer the body's."""
        return await self._call("PUT", path, None, body)

    async def patch(self, path: str, body: Mapping[str, Any], *, content_type: str) -> dict[str, Any]:
        """Patch an object; `content_type` says which of the API's patch formats the body has."""
        return await self._call("PATCH", path, None, body, content_type)

    async def watch(
        self, path: str, params: Mapping[str, str], on_open: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[dict[str, Any]]:
        """The events of one watch connection, as `{"type": ..., "object": ...}`, until the server ends it.

        `on_open` is called when the server has accepted the watch, perhaps long before an event. An event of type ERROR
        is raised as ApiError with its Status' code. `params["timeoutSeconds"]`, which the server honours, also bounds
        the wait for a server that has stopped answering. With `params["allowWatchBookmarks"]`, so does a bound on the
        server's silence.
        """
        seconds = params.get("timeoutSeconds")
        timeout = aiohttp.ClientTimeout(
            total=float(seconds) + _WATCH_GRACE_S if seconds else None,
            sock_connect=_CONNECT_TIMEOUT_S,
            sock_read=self._watch_silence_s if params.get("allowWatchBookmarks") == "true" else None,
        )
        try:
            response = await self._send("GET", path, {**params, "watch": "true"}, timeout=timeout)
            try:
                on_open()
                async for line in _lines(response.content.iter_any()):
                    try:
                        event = _event(line)
                    except RecursionError:  # one author's object must not stop the watch of all others
                        logger.warning("the watch of %s told of an object that is nested too deep: %.200r", path, line)
                        continue
                    yield event
            finally:
                # Cut short, the connection cannot be reused, and a TLS shutdown would outlive its event loop.
                if response.connection is not None and response.connection.transport is not None:
                    response.connection.transport.abort()
                response.close()
        except aiohttp.SocketTimeoutError as error:
            message = (
                f"the API server {self._endpoint.url} said nothing for {self._watch_silence_s:g} s to watch {path}"
            )
            raise ApiError(0, "Silent", message) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable("watch", path, error) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def _call(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        try:
            async with await self._send(method, path, params, data=data, content_type=content_type) as response:
                answer = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
                what = f"to {method} {path} within {_CALL_TIMEOUT_S:g} s"
                raise ApiError(0, "Timeout", f"no answer from the API server {self._endpoint.url} {what}") from error
            raise self._unreachable(method, path, error) from error
        try:
            return _object(answer, f"{method} {path}")
        except RecursionError as error:
            message = f"the API server's answer to {method} {path} is nested too deep: {answer[:200]!r}"
            raise ApiError(0, "NotJSON", message) from error

    async def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        *,
        data: bytes | None = None,
        content_type: str | None = None,
        timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109 - handed on to aiohttp
    ) -> aiohttp.ClientResponse:
        headers = {}
        if data is not None and content_type:
            headers["Content-Type"] = content_type
        try:
            authorization = await self._endpoint.authorization()
        except NoTokenError as error:
            raise ApiError(0, "NoToken", str(error)) from error
        if authorization is not None:
            headers["Authorization"] = authorization
        response = await self._session.request(
            method,
            self._endpoint.url + path,
            params=params,
            data=data,
            headers=headers,
            timeout=timeout or self._session.timeout,
            ssl=self._endpoint.tls(),
            proxy=self._endpoint.proxy,
            server_hostname=self._endpoint.server_name,
            allow_redirects=False,
        )
        if not response.ok:
            async with response:
                raise _error_of(response.status, await response.read(), response.headers.get("Retry-After", ""))
        return response

    def _unreachable(self, what: str, path: str, error: Exception) -> ApiError:
        text = str(error) or type(error).__name__
        return ApiError(
            0, "Unreachable", f"no answer from the API server {self._endpoint.url} to {what} {path}: {text}"
        )


def _socket_with_keepalive(address: aiohttp.AddrInfoType) -> socket.socket:
    """A TCP socket that notices by itself when its peer is gone, as a watch may say nothing for minutes."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)
    return made


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """Whole lines, however the network cut them up: aiohttp's own readline gives up at a fixed buffer size."""
    rest = bytearray()
    async for chunk in chunks:
        rest += chunk
        *whole, last = rest.split(b"\n") if b"\n" in chunk else (rest,)
        for line in whole:
            if line:
                yield bytes(line)
        rest = last
        if len(rest) > _LONGEST_EVENT_BYTES:
            raise ApiError(0, "TooLong", f"the API server sent a watch event of more than {_LONGEST_EVENT_BYTES} bytes")
    if rest:
        yield bytes(rest)


def _event(line: bytes) -> dict[str, Any]:
    event = _object(line, "watch")
    if not isinstance(event.get("type"), str) or not isinstance(event.get("object"), dict):
        raise ApiError(0, "NotJSON", f"the API server's watch sent something that is no event: {line[:200]!r}")
    if event["type"] == "ERROR":
        raise _error_of(500, json.dumps(event["object"]).encode())
    return event


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text.decode("utf-8", "replace"))
    except ValueError as error:
        raise ApiError(0, "NotJSON", f"the API server's answer to {what} is no JSON: {text[:200]!r}") from error
    if not isinstance(value, dict):
        raise ApiError(0, "NotJSON", f"the API server's answer to {what} is no JSON object: {text[:200]!r}")
    return value


def _error_of(status: int, text: bytes, retry_after: str = "") -> ApiError:
    """The error in a Status object, or in whatever a proxy in between said instead; `retry_after` as in RFC 9110."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    # Also a date, by the RFC; API servers send none.
    after_s = int(retry_after) if _SECONDS.fullmatch(retry_after) else 0
    if not isinstance(body, dict):
        return ApiError(
            status, "Unknown", text[:200].decode(errors="replace").strip() or "no message", retry_after_s=after_s
        )
    code = body.get("code")
    return ApiError(
        code if isinstance(code, int) and code else status,
        str(body.get("reason") or "Unknown"),
        str(body.get("message") or "no message"),
        _causes(body.get("details")),
        after_s,
    )


def _causes(details: Any) -> list[str]:
    causes = details.get("causes") if isinstance(details, dict) else None
    return [str(cause.get("reason")) for cause in causes if isinstance(cause, dict)] if isinstance(causes, list) else []
