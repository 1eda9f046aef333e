"""Connections that wait for ever for clients who read nothing: at the bound they make room like any other."""

import asyncio
import json
import socket
import ssl
from functools import partial
from typing import Self

import pytest
from aiohttp import web

from tests.ports import free_port
from tests.unit.webhook.fake_api import FakeApi, namespace
from tests.unit.webhook.running_server import GOOD, HEAD, Raw, review, running, until
from webhook import server
from webhook.bounded import BoundedServer, Bounds

LITTLE = 2048


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
    async with running(FakeApi(namespace("shop", "kube-system.ipvlan"))) as up:
        await up.ready()
        deaf = await Deaf.to(up.settings.port, up.trusting())
        await until(lambda: bool(made[0]._server.connections))
        (connection,) = made[0]._server.connections
        elsewhere = b"GET /" + b"x" * 60 + b" HTTP/1.1\r\nHost: w\r\n\r\n"
        await deaf.send_until_answers_wait(20 * elsewhere, connection.transport._ssl_protocol._transport)
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


async def test_whoever_waits_for_the_end_of_accepting_hears_why() -> None:
    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    here = BoundedServer(handler)
    await here.listen("127.0.0.1", free_port())
    waiting = asyncio.create_task(here.accepting())
    await asyncio.sleep(0)
    here._connections.room = partial(raised, RuntimeError("a defect"))
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
