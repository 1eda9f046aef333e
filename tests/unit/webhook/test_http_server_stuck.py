"""Clients who read nothing: little is kept for them, not for ever, and at the bound they make room like any other."""

import asyncio
import contextlib
import json
import socket
import ssl
from functools import partial
from typing import Self

import pytest
from aiohttp import web

from tests.ports import free_port
from tests.unit.webhook.running_server import GOOD, HEAD, Raw, review, serving
from tests.waiting import until
from webhook import server
from webhook.common.http_server import UNREAD_BYTES, BoundedServer, Bounds

LITTLE = 2048
ELSEWHERE = b"GET /" + b"x" * 60 + b" HTTP/1.1\r\nHost: w\r\n\r\n"


class Deaf:
    """A client that reads nothing once it is connected."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LITTLE)
        self.socket.setblocking(False)
        self.received, self.sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = "webhook.ipvlan-bandwidth.svc"
        self.tls = context and context.wrap_bio(self.received, self.sent, server_hostname=name)

    @classmethod
    async def to(cls, port: int, context: ssl.SSLContext | None = None) -> Self:
        made = cls(context)
        await made.loop.sock_connect(made.socket, ("127.0.0.1", port))
        while made.tls:
            try:
                made.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await made.flush()
                made.received.write(await made.loop.sock_recv(made.socket, 65536))
        await made.flush()
        return made

    async def flush(self) -> None:
        if data := self.sent.read():
            await self.loop.sock_sendall(self.socket, data)

    async def send(self, data: bytes) -> None:
        (self.tls or self.sent).write(data)
        await self.flush()

    async def send_until_answers_wait(self, data: bytes, transport: asyncio.WriteTransport) -> None:
        async with asyncio.timeout(20):
            while not transport.get_write_buffer_size():
                await self.send(data)
                await asyncio.sleep(0.002)

    async def say_farewell_with(self, data: bytes) -> None:
        """In one segment, as whoever is up to no good does."""
        self.tls.write(data)
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()
        await self.flush()


async def test_a_connection_that_tls_has_let_go_of_makes_room_and_its_server_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[BoundedServer] = []

    def bounded(*arguments: object, **_: Bounds) -> BoundedServer:
        made.append(BoundedServer(*arguments, bounds=Bounds(connections=3)))
        return made[-1]

    monkeypatch.setattr(server, "BoundedServer", bounded)
    body = json.dumps(review(GOOD)).encode()
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    async with serving() as up:
        deaf = await Deaf.to(up.settings.port, up.trusting())
        await until(lambda: bool(made[0]._server.connections))
        (connection,) = made[0]._server.connections
        await deaf.send_until_answers_wait(20 * ELSEWHERE, connection.transport._ssl_protocol._transport)
        await deaf.say_farewell_with(HEAD.replace(b"json", b"plain") + b"Content-Length: 0\r\n\r\n")
        await asyncio.sleep(0.5)
        assert connection in made[0]._server.connections
        others = []
        for _ in range(4):
            others.append(await Raw.to(up))
            assert await others[-1].status_after(request) == 200
        assert connection not in made[0]._server.connections
        for other in others:
            other.writer.close()
        deaf.socket.close()


async def test_a_connection_that_aiohttp_has_let_go_of_makes_room() -> None:
    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"m" * 9000)

    here, port = BoundedServer(handler, Bounds(connections=2, idle_s=1.0)), free_port()
    await here.listen("127.0.0.1", port)
    deaf = await Deaf.to(port)
    await until(lambda: bool(here._server.connections))
    (connection,) = here._server.connections
    question = b"GET /metrics HTTP/1.1\r\nHost: w\r\n\r\n"
    await deaf.send_until_answers_wait(question, connection.transport)
    await until(lambda: connection.transport is None)
    assert connection in here._server.connections
    clients = []
    async with asyncio.timeout(5):
        for _ in range(4):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(question)
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            clients.append(writer)
    assert connection not in here._server.connections
    for writer in clients:
        writer.close()
    deaf.socket.close()
    await here.close()


def keeping_little(made: list[BoundedServer], monkeypatch: pytest.MonkeyPatch, bounds: Bounds) -> None:
    """Servers for which the kernel holds little: on loopback it takes megabytes."""

    class Keeping(BoundedServer):
        async def listen(self, *arguments: object) -> None:
            made.append(self)
            await super().listen(*arguments)
            for listening in self._listening:
                for which in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                    listening.setsockopt(socket.SOL_SOCKET, which, 16 * LITTLE)

    monkeypatch.setattr(server, "BoundedServer", lambda *arguments, **_: Keeping(*arguments, bounds=bounds))


async def test_of_whoever_asks_on_and_reads_nothing_little_is_kept_and_all_is_answered_once_it_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[BoundedServer] = []
    keeping_little(made, monkeypatch, Bounds())
    async with serving() as up:
        https = made[-1]
        stranger = await Raw.to(up)
        its_socket = stranger.writer.get_extra_info("socket")
        for which in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            its_socket.setsockopt(socket.SOL_SOCKET, which, 16 * LITTLE)
        stranger.writer.transport.set_write_buffer_limits(LITTLE)
        asked = 0
        async with asyncio.timeout(60):
            while not any(each.writing_paused for each in https._server.connections):
                stranger.writer.write(100 * ELSEWHERE)
                asked += 100
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await stranger.writer.drain()
        (connection,) = https._server.connections
        tls = connection.transport._ssl_protocol
        assert tls._transport.get_write_buffer_size() < 2**16 + 2048
        assert connection.transport.get_write_buffer_size() < UNREAD_BYTES + 2048
        assert tls._incoming.pending < 2 * 2**14
        for _ in range(asked):
            assert await stranger.status_after() == 404
            await stranger.reader.readuntil(b"only /mutate\n")
        stranger.writer.close()


@pytest.mark.parametrize("tls", [True, False])
async def test_whoever_reads_nothing_of_its_answers_is_cut_off_after_a_while(
    monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    made: list[BoundedServer] = []
    keeping_little(made, monkeypatch, Bounds(unread_s=0.5))
    async with serving() as up:
        asked = made[-1] if tls else made[0]
        others = set(asked._server.connections)
        deaf = await Deaf.to(up.settings.port if tls else up.settings.health_port, up.trusting() if tls else None)
        await until(lambda: bool(set(asked._server.connections) - others))
        (connection,) = set(asked._server.connections) - others
        with contextlib.suppress(OSError):  # it may be cut off by then
            async with asyncio.timeout(10):
                while not connection.writing_paused:
                    await deaf.send(20 * ELSEWHERE)
                    await asyncio.sleep(0.002)
        await until(lambda: connection not in asked._server.connections)
        deaf.socket.close()


async def test_whoever_waits_for_the_end_of_accepting_hears_why() -> None:
    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    here = BoundedServer(handler)
    await here.listen("127.0.0.1", free_port())
    waiting = asyncio.create_task(here.accepting())
    await asyncio.sleep(0)
    here._connections.wait_for_room = partial(raised, RuntimeError("a defect"))
    (listening,) = here._listening
    _, writer = await asyncio.open_connection(*listening.getsockname())
    with pytest.raises(RuntimeError, match="a defect"):
        await waiting
    writer.close()
    await here.close()


async def raised(error: Exception) -> None:
    raise error


async def test_a_server_that_is_closed_has_ended_without_a_reason() -> None:
    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    here = BoundedServer(handler)
    await here.listen("127.0.0.1", free_port())
    await here.close()
    await here.accepting()
