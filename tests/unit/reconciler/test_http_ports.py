"""The port that strangers reach, and kubelet's, which they do not."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web

from reconciler import http
from tests.ports import free_ports
from tests.waiting import background, until


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
    ports = http.Ports("", port, probe_port)
    async with background(ports.run(page)):
        await until(lambda: is_open(port) and is_open(probe_port))
        yield port, probe_port


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


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
async def test_a_port_that_is_taken_is_named_and_so_is_the_flag_for_another_until_it_is_free(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, taken: int, remedy: str
) -> None:
    monkeypatch.setattr(http, "AGAIN_S", 0.01)
    numbers = free_ports(2)
    ports = http.Ports("127.0.0.1", *numbers)
    others = socket.create_server(("127.0.0.1", numbers[taken]))
    async with background(ports.run(page)):
        await until(lambda: ports.trouble)
        assert f"port {numbers[taken]} of 127.0.0.1" in ports.trouble
        assert "address already in use" in ports.trouble
        assert ports.trouble.endswith(remedy)
        assert (await answer(numbers[1 - taken])).endswith(b"ok\n"), "the other one is served"
        await asyncio.sleep(0.1)
        assert len(caplog.records) == 1, "however often it is tried"
        others.close()
        await until(lambda: ports.trouble is None)
        assert (await answer(numbers[taken])).endswith(b"ok\n")
