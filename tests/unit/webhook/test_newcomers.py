"""Connections that have not asked yet: a burst of them waits its turn, and a flood is in nobody's way."""

import asyncio
import contextlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web, web_protocol

from tests.unit.webhook.running_server import Raw, Running, serving
from tests.unit.webhook.test_http_server import admitted, bounded
from webhook import server
from webhook.common.connections import Connections
from webhook.common.http_server import PLAIN_READ_BYTES, Bounds
from webhook.server import HEALTH_BOUNDS

Plain = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def plain(up: Running) -> Plain:
    """One that connects, and never says a word of TLS."""
    return await asyncio.open_connection("127.0.0.1", up.settings.port)


async def is_let_go(connection: Plain) -> None:
    with contextlib.suppress(ConnectionResetError):
        assert await connection[0].read() == b""
    connection[1].close()


async def test_clients_that_never_begin_tls_are_let_go_and_take_no_one_s_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bounded(monkeypatch, Bounds(connections=4, handshake_s=1.0, first_request_s=0.05)) as up:
        api_server = await Raw.to(up)
        await admitted(api_server)
        dumb = [await plain(up) for _ in range(20)]
        async with asyncio.timeout(10):
            for each in dumb:
                await is_let_go(each)
        await admitted(api_server)
        api_server.writer.close()


async def test_a_trickle_of_clients_that_never_begin_tls_ends_no_connection_between_handshake_and_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bounded(monkeypatch, Bounds(connections=8, handshake_s=600.0, first_request_s=0.1)) as up:
        dumb = [await plain(up) for _ in range(8)]
        for _ in range(5):
            api_server = await Raw.to(up)
            # Two more, of which each takes a place as soon as there is one.
            for _ in range(2):
                dumb.append(await plain(up))
                await is_let_go(dumb.pop(0))
            await admitted(api_server)
            api_server.writer.close()
        for _, writer in dumb:
            writer.close()


async def test_a_flood_of_clients_that_never_begin_tls_leaves_idle_connections_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bounded(monkeypatch, Bounds(connections=8, handshake_s=600.0, first_request_s=0.05)) as up:
        idle = [await Raw.to(up) for _ in range(4)]
        for each in idle:
            await admitted(each)
        dumb = [await plain(up) for _ in range(40)]
        for each in dumb[:36]:
            await is_let_go(each)
        for each in idle:
            await admitted(each)
            each.writer.close()
        for _, writer in dumb[36:]:
            writer.close()


@pytest.mark.parametrize("stays", [True, False])
async def test_of_more_api_servers_connections_at_once_than_the_bound_none_is_cut(
    monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    # With all the time there is: the time that this machine takes must not decide.
    async with bounded(monkeypatch, Bounds(connections=8, handshake_s=600.0, first_request_s=600.0)) as up:

        async def admit() -> Raw:
            raw = await Raw.to(up)
            await asyncio.sleep(0.01)
            await admitted(raw)
            if not stays:
                raw.writer.close()
            return raw

        async with asyncio.timeout(30):
            burst = await asyncio.gather(*(admit() for _ in range(50)))
        for each in burst:
            each.writer.close()


async def test_a_probe_comes_through_ten_times_as_many_silent_connections_to_the_health_port_as_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "HEALTH_BOUNDS", replace(HEALTH_BOUNDS, connections=8))
    async with serving() as up:
        where = "127.0.0.1", up.settings.health_port
        async with asyncio.timeout(5):
            dumb = [await asyncio.open_connection(*where) for _ in range(80)]
            kubelet = Raw(*await asyncio.open_connection(*where))
            assert await kubelet.status_after(b"GET /healthz HTTP/1.1\r\nHost: webhook\r\n\r\n") == 200
        for writer in (*(each for _, each in dumb), kubelet.writer):
            writer.close()


def test_two_api_servers_with_all_the_changes_under_way_that_they_allow_fit_into_one_replica() -> None:
    # kube-apiserver's --max-mutating-requests-inflight is 200, and 25 connections of each are idle.
    assert Bounds().connections >= 2 * (200 + 25)


async def test_a_connection_costs_a_buffer_of_one_record_of_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bounded(monkeypatch) as up:
        raw = await Raw.to(up)
        # Both ends are asyncio's here.
        transport: Any = raw.writer.transport
        assert len(transport._ssl_protocol._ssl_buffer) == 16 * 1024
        await admitted(raw)
        raw.writer.close()


async def test_the_servers_connections_without_tls_are_read_in_small_pieces_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    received: list[int] = []
    feed = web_protocol.RequestHandler.data_received

    def data_received(self: web_protocol.RequestHandler, data: bytes) -> None:
        received.append(len(data))
        feed(self, data)

    monkeypatch.setattr(web_protocol.RequestHandler, "data_received", data_received)
    async with serving() as up:
        received.clear()
        connection = Raw(*await asyncio.open_connection("127.0.0.1", up.settings.health_port))
        # With the connection there is more than is read at once.
        head = b"POST /healthz HTTP/1.1\r\nHost: webhook\r\nContent-Length: %d\r\n\r\n" % 2**18
        assert await connection.status_after(head + bytes(2**18)) == 405
        assert max(received) == PLAIN_READ_BYTES
        transport: Any = connection.writer.transport
        assert transport.max_size == 256 * 1024  # as asyncio has it: the runtime's plugin reads 64 KiB at once
        connection.writer.close()


@pytest.mark.parametrize("answered", [False, True])
async def test_a_connection_that_asks_before_its_handshake_is_told_to_be_over_is_no_newcomer(answered: bool) -> None:
    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    class Protocol:
        transport = None

    async def handshake() -> None:
        protocol: Any = Protocol()
        connections.request_started(SimpleNamespace(protocol=protocol))
        if answered:
            connections.request_finished(protocol)
        connections.established(protocol, its_socket)

    connections, its_socket = Connections(web.Server(handler), 4, 1.0), Protocol()
    connections.handshake(its_socket, handshake())
    (task,) = connections._handshakes
    await task
    await asyncio.sleep(0)
    assert connections._new == {}
