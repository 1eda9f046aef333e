"""Heads of requests: those of any client pass, and larger ones are refused before they take much memory."""

import asyncio
import gc
import re
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from tests.ports import free_port
from webhook.common import http_server
from webhook.common.http_server import LONGEST_LINE_BYTES, MOST_HEAD_BYTES, MOST_HEADERS, BoundedServer
from webhook.common.logs import LINE_EVERY_S, LINES_AT_ONCE

REQUEST = b"GET /healthz HTTP/1.1\r\n"
EMOJI = "\N{GRINNING FACE}".encode()
# As many of them as may be fit.
SHORT = MOST_HEAD_BYTES // MOST_HEADERS - 16


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=str(len(request.headers)))

    here, number = BoundedServer(handler), free_port()
    await here.listen("127.0.0.1", number)
    try:
        yield number
    finally:
        await here.close()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with serving() as number:
        yield number


def header(number: int, size: int = LONGEST_LINE_BYTES) -> bytes:
    """So many bytes of name and value; each character of the value takes four when it is text."""
    name = b"X%02d" % number
    return name + b": " + EMOJI + b"x" * (size - len(name + EMOJI)) + b"\r\n"


def headers(number: int, size: int = SHORT) -> bytes:
    return b"Host: w\r\n" + b"".join(header(each, size) for each in range(1, number))


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (REQUEST + headers(MOST_HEADERS), 200),
        (REQUEST + headers(MOST_HEADERS + 1), 400),
        (REQUEST + headers(2, LONGEST_LINE_BYTES), 200),
        (REQUEST + headers(2, LONGEST_LINE_BYTES + 8), 400),
        (REQUEST + headers(3, LONGEST_LINE_BYTES), 400),
        (b"GET /" + b"x" * (LONGEST_LINE_BYTES - 1) + b" HTTP/1.1\r\nHost: w\r\n", 200),
        (b"GET /" + b"x" * LONGEST_LINE_BYTES + b" HTTP/1.1\r\nHost: w\r\n", 400),
    ],
    ids=["all", "one too many", "the longest", "too long", "too much", "the longest path", "too long a path"],
)
async def test_a_head_larger_than_any_client_s_is_a_client_error(port: int, head: bytes, status: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + b"\r\n")
    assert int((await reader.readline()).split()[1]) == status
    writer.close()


@pytest.mark.parametrize(
    "line",
    [
        b"GET http://xn--a/",
        b"GET http://xn--a",
        b"GET http://xn--a?xn--a",
        b"GET http://xn--a:443/mutate",
        b"GET http://user:secret@xn--a/",
        b"GET http://w/",
        b"GET http://w:0/",
        b"GET http://w:99999/",
        b"GET http://w:port/",
        b"GET http://@/",
        b"GET http://[::1]:443/",
        b"GET http://[]@/",
        b"GET http://\xff/",
        b"GET http:///",
        b"GET ftp://xn--a/",
        b"GET //xn--a/",
        b"GET xn--a:443",
        b"GET *",
        b"OPTIONS *",
        b"OPTIONS http://xn--a/",
        b"CONNECT xn--a:443",
        b"CONNECT user@xn--a:443",
        b"CONNECT [::1]:443",
        b"CONNECT w:99999",
        b"CONNECT :443",
        b"CONNECT http://xn--a/",
        b"CONNECT /",
    ],
    ids=lambda line: line.decode(errors="replace"),
)
@pytest.mark.parametrize("before", [b"", REQUEST + b"Host: w\r\n\r\n"], ids=["first", "at once with another"])
async def test_whatever_a_request_is_for_it_has_its_answer_and_no_traceback(
    caplog: pytest.LogCaptureFixture, line: bytes, before: bytes
) -> None:
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(before + line + b" HTTP/1.1\r\nHost: xn--a\r\n\r\n")
        async with asyncio.timeout(5):
            if before:
                await reader.readuntil(b"\r\n\r\n1")
            assert re.match(rb"HTTP/1\.[01] [24]00 ", await reader.readline())
        writer.close()
        await writer.wait_closed()
    gc.collect()
    assert not [each for each in caplog.records if each.name == "asyncio" or each.exc_info]


async def test_of_requests_that_are_no_http_some_are_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    monkeypatch.setattr("webhook.common.http_server.time", SimpleNamespace(monotonic=lambda: now))
    async with serving() as port:
        for _ in range(LINES_AT_ONCE + 5):
            await refused(port)
        now = LINE_EVERY_S
        await refused(port)
    *first, last = (each for each in caplog.records if each.name == "aiohttp.server")
    assert len(first) == LINES_AT_ONCE
    assert vars(last)["suppressed"] == 5
    assert last.getMessage() == "no HTTP from a client: Missing 'Host' header in request."
    assert last.exc_info is None


async def refused(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST + b"\r\n")
    assert b" 400 " in await reader.readline()
    await reader.read()
    writer.close()


async def test_what_prometheus_sends_with_a_token_passes(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    accept = b"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=1.0.0;q=0.3,*/*;q=0.1;" + b"x" * 410
    writer.write(REQUEST + b"Host: w\r\nAuthorization: Bearer " + b"x" * 1500 + b"\r\nAccept: " + accept + b"\r\n\r\n")
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    writer.close()


async def test_what_api_servers_pass_on_of_an_instrumented_client_passes(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    # Of the lengths that W3C's Trace Context and Baggage have implementations pass on.
    trace = b"traceparent: 00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01\r\ntracestate: k=" + b"x" * 510 + b"\r\n"
    writer.write(REQUEST + b"Host: w\r\n" + trace + b"baggage: k=" + b"x" * 8190 + b"\r\n\r\n")
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    writer.close()


@pytest.mark.parametrize("before", [b"", b"CONNECT w:443 HTTP/1.1\r\nHost: w\r\n\r\n"], ids=["", "after CONNECT"])
async def test_a_head_that_comes_in_pieces_is_bounded_too(port: int, before: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    if before:
        writer.write(before)
        await reader.readuntil(b"\r\n\r\n")
    writer.write(REQUEST + b"Host: w\r\n")
    for number in range(3):
        await asyncio.sleep(0.02)
        writer.write(header(number, LONGEST_LINE_BYTES))
    async with asyncio.timeout(5):
        assert b" 400 " in await reader.readline()
    writer.close()


async def test_without_tls_no_more_is_read_at_once_than_a_head_may_have(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    feed = http_server._Parser.feed_data

    def fed(parser: http_server._Parser, data: bytes) -> Any:
        sizes.append(len(data))
        return feed(parser, data)

    monkeypatch.setattr(http_server._Parser, "feed_data", fed)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST + b"Host: w\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    assert max(sizes) <= MOST_HEAD_BYTES
    writer.close()


async def test_heads_of_a_connection_are_each_counted_for_themselves(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(5):
        for part in (REQUEST, headers(12), b"\r\n"):
            writer.write(part)
            await asyncio.sleep(0.01)
        await reader.readuntil(b"HTTP/1.1 200 OK\r\n")
        await reader.readuntil(b"\r\n\r\n12")
    writer.close()


async def test_a_head_that_never_ends_takes_a_third_of_a_megabyte_at_most(port: int) -> None:
    number = 8
    clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(number)]
    few = [header(each, MOST_HEAD_BYTES // 12) for each in range(1, MOST_HEADERS - 1)]
    # What comes at once with the end of another request is not counted.
    first = REQUEST + b"Host: w\r\n\r\n" + REQUEST + b"Host: w\r\n" + b"".join(few[:11])
    gc.collect()
    tracemalloc.start()
    try:
        for reader, writer in clients:
            writer.write(first)
            await reader.readuntil(b"\r\n\r\n1")
        for line in few[11:]:
            for _, writer in clients:
                writer.write(line)
                await writer.drain()
            await asyncio.sleep(0.01)
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 100_000 < taken / number < 333_000
    for reader, writer in clients:
        writer.write(header(98, MOST_HEAD_BYTES // 6))
        async with asyncio.timeout(5):
            assert b" 400 " in await reader.readline()
        writer.close()
