"""Connections to the webhook: who makes room when there are many."""

import asyncio
import contextlib
import errno
import gc
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.ports import free_port
from tests.unit.webhook.running_server import GOOD, HEAD, Raw, Running, review, serving
from tests.waiting import until
from webhook import server
from webhook.common.http_server import BoundedServer, Bounds

BODY = json.dumps(review(GOOD)).encode()
REQUEST = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


async def admitted(raw: Raw) -> dict[str, str]:
    """A Pod is admitted on this connection; the answer's header."""
    assert await raw.status_after(REQUEST) == 200
    lines = (await raw.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    header = {name: value for name, _, value in (line.partition(": ") for line in lines)}
    assert json.loads(await raw.reader.readexactly(int(header["Content-Length"])))["response"]["allowed"]
    return header


@asynccontextmanager
async def bounded(
    monkeypatch: pytest.MonkeyPatch,
    bounds: Bounds | None = None,
    made: list[BoundedServer] | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """In `made`, the first is the one for API servers."""

    def making(*arguments: Any, **keywords: Bounds) -> BoundedServer:
        fresh = BoundedServer(*arguments, **{"bounds": bounds or Bounds(), **keywords})
        if made is not None:
            made.append(fresh)
        return fresh

    monkeypatch.setattr(server, "BoundedServer", making)
    async with serving(**settings) as up:
        yield up


async def test_at_the_bound_silent_connections_make_room_before_those_that_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bounded(monkeypatch, Bounds(connections=4, first_request_s=0.05)) as up:
        api_server = await Raw.to(up)
        await admitted(api_server)
        silent = [await Raw.to(up) for _ in range(20)]
        for each in silent[:17]:
            await each.is_closed()
        await admitted(api_server)
        late = await Raw.to(up)
        await admitted(late)
        await admitted(api_server)
        for each in (api_server, late, *silent):
            each.writer.close()


async def test_at_the_bound_the_one_that_asked_longest_ago_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bounded(monkeypatch, Bounds(connections=3)) as up:
        first, second, third = [await Raw.to(up) for _ in range(3)]
        for each in (first, second, third, first):
            await admitted(each)
        fourth = await Raw.to(up)
        await second.is_closed()
        for each in (first, third, fourth):
            await admitted(each)
            each.writer.close()


async def test_a_connection_that_waits_for_its_answer_is_never_ended_and_a_new_one_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = json.dumps(review(GOOD, where="slow")).encode()
    made: list[BoundedServer] = []
    async with bounded(monkeypatch, Bounds(connections=2), made) as up:
        connections = made[0]._connections
        answers, get = asyncio.Event(), up.api.get

        async def slowly(path: str) -> dict[str, Any]:
            await answers.wait()
            return await get(path)

        monkeypatch.setattr(up.api, "get", slowly)
        busy = [await Raw.to(up) for _ in range(2)]
        for each in busy:
            each.writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await until(lambda: len(connections._busy) == 2)
        looks: list[None] = []
        end_one = connections._end_one
        monkeypatch.setattr(connections, "_end_one", lambda: looks.append(end_one()))
        waiting = asyncio.create_task(Raw.to(up))
        await until(lambda: len(looks) > 100)
        assert not waiting.done()
        answers.set()
        for each in busy:
            assert await each.status_after() == 200
        await admitted(await waiting)
        for each in (*busy, waiting.result()):
            each.writer.close()


async def test_at_the_bound_the_request_that_has_been_coming_for_longest_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[BoundedServer] = []
    async with bounded(monkeypatch, Bounds(connections=3), made) as up:
        slow = [await Raw.to(up) for _ in range(3)]
        for number, each in enumerate(slow, 1):
            each.writer.write(REQUEST[:-1])
            await until(lambda number=number: len(made[0]._connections._busy) == number)
        late = await Raw.to(up)
        await admitted(late)
        await slow[0].is_closed()
        for each in slow[1:]:
            assert await each.status_after(REQUEST[-1:]) == 200
        for each in (*slow, late):
            each.writer.close()


@pytest.mark.parametrize("patient", [True, False])
async def test_clients_that_never_begin_tls_leave_no_buffers_to_the_garbage_collector(
    monkeypatch: pytest.MonkeyPatch, patient: bool
) -> None:
    def buffers() -> int:
        return sum(type(each).__name__ == "SSLProtocol" for each in gc.get_objects())

    async with bounded(monkeypatch, Bounds(connections=4, handshake_s=0.1, first_request_s=0.05)) as up:
        gc.collect()
        before = buffers()
        gc.disable()
        try:
            dumb = [await asyncio.open_connection("127.0.0.1", up.settings.port) for _ in range(10)]
            for reader, writer in dumb:
                if patient:
                    with contextlib.suppress(ConnectionResetError):
                        await reader.read()
                writer.close()
            await until(lambda: buffers() == before)
        finally:
            gc.enable()


async def test_a_head_that_comes_too_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bounded(monkeypatch, Bounds(idle_s=0.2)) as up:
        raw = await Raw.to(up)
        raw.writer.write(HEAD)
        await raw.is_closed()


async def test_idle_connections_are_the_api_server_s_to_close() -> None:
    assert Bounds().idle_s > 90


async def test_out_of_file_descriptors_it_goes_on_when_there_are_some_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    accept, failures = loop.sock_accept, [OSError(errno.EMFILE, "Too many open files")]

    async def accept_when_there_are(listening: socket.socket) -> tuple[socket.socket, Any]:
        if failures:
            raise failures.pop()
        return await accept(listening)

    monkeypatch.setattr(loop, "sock_accept", accept_when_there_are)
    async with bounded(monkeypatch) as up:
        raw = await Raw.to(up)
        await admitted(raw)
        raw.writer.close()
    assert "cannot accept a connection: [Errno 24] Too many open files" in caplog.text


async def test_closed_connections_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[BoundedServer] = []

    def making(*arguments: Any, **_: Bounds) -> BoundedServer:
        made.append(BoundedServer(*arguments, bounds=Bounds(connections=5)))
        return made[-1]

    monkeypatch.setattr(server, "BoundedServer", making)
    async with serving() as up:
        for _ in range(20):
            raw = await Raw.to(up)
            await admitted(raw)
            raw.writer.close()
            await raw.writer.wait_closed()
        assert len(made[0]._connections._idle) <= 6


async def test_one_request_of_a_connection_is_read_ahead_of_its_answers_and_all_are_answered() -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        asked.set()
        await answer.wait()
        return web.Response()

    here = BoundedServer(handler)
    port = free_port()
    await here.listen("127.0.0.1", port)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(8 * REQUEST)
    await asked.wait()
    (connection,) = here._connections._server.connections
    await until(lambda: bool(connection._messages))
    assert len(connection._messages) == 1
    answer.set()
    for _ in range(8):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    await here.close()
