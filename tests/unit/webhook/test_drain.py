"""A drain lets go of each connection when its client does, and takes new ones while some still come."""

import asyncio
import contextlib
import itertools
import logging
import time
from pathlib import Path

import pytest

from tests.unit.webhook.running_server import Raw, Running
from tests.unit.webhook.test_http_server import admitted, bounded
from tests.waiting import until
from webhook.common.http_server import LOOK_S, BoundedServer


def listening(port: int) -> bool:
    """As the kernel has it: a connection, to see it refused, might be the last that is taken."""
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(local.endswith(f":{port:04X}") and state == "0A" for _, local, _, state, *_ in sockets)


async def test_a_request_on_an_idle_connection_is_answered_however_late_in_the_drain_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bounded(monkeypatch, linger_s=60.0) as up:
        used, idle = await Raw.to(up), await Raw.to(up)
        for each in (used, idle):
            assert "Connection" not in await admitted(each)
        up.stop.set()
        await up.draining()
        assert (await admitted(used))["Connection"] == "close"
        await used.is_closed()
        assert not up.task.done()
        idle.writer.close()
        async with asyncio.timeout(10):
            await up.task


async def test_whoever_still_takes_it_for_an_endpoint_late_in_the_drain_is_answered_on_a_new_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bounded(monkeypatch, drains=True, linger_s=60.0) as up:
        idle = await Raw.to(up)
        await admitted(idle)
        up.stop.set()
        await up.draining()
        up.drained.set()
        await asyncio.sleep(0.2)
        late = await Raw.to(up)
        assert (await admitted(late))["Connection"] == "close"
        for each in (late, idle):
            each.writer.close()
        async with asyncio.timeout(10):
            await up.task
        assert not listening(up.settings.port)


class Looks:
    """What a server that drains waits for between two looks: the test."""

    def __init__(self) -> None:
        self._asked, self._due = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def __call__(self, _seconds: float) -> None:
        self._asked.release()
        await self._due.acquire()

    async def pass_by(self, number: int) -> None:
        """Let it look so often, until it waits for the next."""
        async with asyncio.timeout(10):
            for _ in range(number):
                await self._asked.acquire()
                self._due.release()
            await self._asked.acquire()
        self._asked.release()

    def go_on(self) -> None:
        self._due.release()


async def test_it_stops_once_no_connection_has_come_or_been_open_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, servers, quiet = Looks(), list[BoundedServer](), 16
    lasts = {"drain_s": quiet * LOOK_S, "linger_s": 60.0}
    async with bounded(monkeypatch, made=servers, drains=True, look=looks, **lasts) as up:
        up.stop.set()
        await up.draining()
        up.drained.set()
        for still_s in (quiet * LOOK_S, 0, 0):
            await looks.pass_by(quiet - 1)
            time.sleep(still_s)  # noqa: ASYNC251 - as the machine may
            late = await Raw.to(up)
            assert (await admitted(late))["Connection"] == "close"
            late.writer.close()
            await until(lambda: not servers[0]._connections.number)
            await looks.pass_by(1)  # which finds that one had come
        await looks.pass_by(quiet - 1)
        assert not up.task.done()
        looks.go_on()
        async with asyncio.timeout(10):
            await up.task
    assert not listening(up.settings.port)


async def test_a_client_that_keeps_its_connection_for_ever_does_not_keep_the_webhook(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with bounded(monkeypatch, linger_s=0.1) as up:
        raw = await Raw.to(up)
        await admitted(raw)
        with caplog.at_level(logging.WARNING, "webhook.common.http_server"):
            up.stop.set()
            await raw.is_closed()
            await up.task
    assert "closing 1 connections that clients left open" in caplog.text


class LikeAnApiServer:
    """Calls the webhook as Go's http.Transport does: the idle connection used last comes first, no POST is repeated."""

    def __init__(self, *replicas: Running) -> None:
        self.endpoints = list(replicas)
        self._idle: list[Raw] = []
        self._turn = itertools.count()
        self.dialled = 0

    async def admit(self) -> None:
        while self._idle and self._idle[-1].reader.at_eof():
            self._idle.pop().writer.close()
        raw = self._idle.pop() if self._idle else await self._dial()
        if (await admitted(raw)).get("Connection") == "close":
            raw.writer.close()
        else:
            self._idle.append(raw)

    async def _dial(self) -> Raw:
        self.dialled += 1
        return await Raw.to(self.endpoints[next(self._turn) % len(self.endpoints)])

    def close(self) -> None:
        for raw in self._idle:
            raw.writer.close()


async def test_no_admission_fails_while_replicas_are_replaced_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with contextlib.AsyncExitStack() as stack:

        async def replica() -> Running:
            return await stack.enter_async_context(bounded(monkeypatch, drains=True, linger_s=60.0))

        client = LikeAnApiServer(await replica(), await replica())

        async def create_pods(seconds: float) -> None:
            """Bursts of five, so that connections lie idle between them; some 100 a second."""
            for _ in range(int(seconds / 0.05)):
                await asyncio.gather(asyncio.sleep(0.05), *(client.admit() for _ in range(5)))

        await create_pods(0.2)
        for _ in range(2):
            fresh = await replica()
            leaving = client.endpoints.pop(0)
            leaving.stop.set()
            # The endpoint is dialled for a while after it began to drain.
            client.endpoints.append(leaving)
            await create_pods(0.2)
            client.endpoints.remove(leaving)
            client.endpoints.append(fresh)
            leaving.drained.set()
            await create_pods(0.5)
        client.close()
        assert client.dialled > 10
