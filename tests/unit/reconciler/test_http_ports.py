"""The port that strangers reach, and kubelet's, which they do not."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web

from reconciler import http
from reconciler.kernel.errors import ShapingError
from tests.ports import free_ports


async def page(_: web.BaseRequest) -> web.Response:
    return web.Response(text="ok\n")


async def answer(port: int, address: str = "127.0.0.1") -> bytes:
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
    text = await reader.read()
    writer.close()
    return text


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[int, int]]:
    port, probe_port = free_ports(2)
    servers = await http.listen(page, "", port, probe_port)
    yield port, probe_port
    for server in servers:
        await server.close()


def silent(held: ExitStack, port: int) -> None:
    """One more that connects, if it can, and says nothing."""
    connection = held.enter_context(socket.socket())
    connection.setblocking(False)
    connection.connect_ex(("127.0.0.1", port))


async def test_kubelet_has_its_answer_while_strangers_hold_their_port_and_its_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bounds = replace(http.METRICS_BOUNDS, connections=2, backlog=2, first_request_s=600.0)
    monkeypatch.setattr(http, "METRICS_BOUNDS", bounds)
    async with listening() as (port, probe_port):
        with ExitStack() as held:
            for _ in range(20):
                silent(held, port)
                await asyncio.sleep(0.01)
            async with asyncio.timeout(10):
                assert (await answer(probe_port)).endswith(b"ok\n")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await answer(port)


async def test_only_loopback_reaches_kubelets_port() -> None:
    async with listening() as (port, probe_port):
        assert (await answer(port, "127.0.0.2")).endswith(b"ok\n")
        with pytest.raises(ConnectionRefusedError):
            await answer(probe_port, "127.0.0.2")


async def test_a_scrape_comes_through_ten_times_as_many_silent_connections_as_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "METRICS_BOUNDS", replace(http.METRICS_BOUNDS, connections=8))
    async with listening() as (port, _):
        with ExitStack() as held:
            for _ in range(80):
                silent(held, port)
            async with asyncio.timeout(5):
                assert (await answer(port)).endswith(b"ok\n")


@pytest.mark.parametrize(
    ("taken", "remedy"), [(0, "--port and --listen name another"), (1, "--probe-port names another")]
)
async def test_a_port_that_is_taken_is_named_and_so_is_the_flag_for_another(taken: int, remedy: str) -> None:
    ports = free_ports(2)
    with socket.create_server(("127.0.0.1", ports[taken])), pytest.raises(ShapingError) as error:
        await http.listen(page, "127.0.0.1", *ports)
    assert f"port {ports[taken]} of 127.0.0.1" in str(error.value)
    assert "address already in use" in str(error.value)
    assert remedy in str(error.value)
