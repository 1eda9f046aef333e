"""A webhook that serves in the test's event loop over real TLS on loopback, with an API server in memory."""

import argparse
import asyncio
import base64
import io
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Self
from unittest.mock import patch

import aiohttp

from tests.ports import free_ports
from tests.unit.webhook.fake_api import CONFIGURATION, FakeApi, Json, shop
from tests.unit.webhook.objects import review_of
from tests.waiting import until
from webhook.common import pages
from webhook.server import serve
from webhook.settings import Settings, add_arguments, settings_of

REFUSED: Final = {"kubernetes.io/ingress-bandwidth": "100m"}
GOOD: Final = {"kubernetes.io/ingress-bandwidth": "0.1G"}
HEAD: Final = b"POST /mutate HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\n"


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def review(annotations: Json | None = None, where: str = "shop") -> Json:
    document = {"metadata": {"generateName": "web-", "annotations": annotations or {}}, "spec": {}}
    return review_of(document, uid="u-1", namespace=where)


@dataclass
class Running:
    """A server that runs in this event loop, and a client that trusts what the configuration trusts."""

    api: FakeApi
    settings: Settings
    stop: asyncio.Event
    task: asyncio.Task[None]
    session: aiohttp.ClientSession
    begun: asyncio.Event
    """Set once it drains."""
    drained: asyncio.Event
    """Set, the time for which it drains is over."""

    async def get(self, path: str) -> tuple[int, str]:
        async with self.session.get(f"http://127.0.0.1:{self.settings.health_port}{path}") as response:
            return response.status, await response.text()

    async def readyz(self) -> tuple[int, str]:
        """Also before it listens: no status then."""
        with suppress(aiohttp.ClientConnectorError):
            return await self.get("/readyz")
        return 0, ""

    async def ready(self) -> None:
        async def is_ready() -> bool:
            return (await self.readyz())[0] == 200

        await until(is_ready)

    async def says(self, part: str, times: int = 1) -> None:
        """Wait until it says that of what it waits for."""

        async def is_said() -> bool:
            return (await self.readyz())[1].count(part) >= times

        await until(is_said)

    async def draining(self) -> None:
        async with asyncio.timeout(10):
            await self.begun.wait()

    def trusting(self) -> ssl.SSLContext:
        bundle = self.api.objects[CONFIGURATION]["webhooks"][0]["clientConfig"]["caBundle"]
        return ssl.create_default_context(cadata=base64.b64decode(bundle).decode())

    async def post(self, body: object, **keywords: Any) -> aiohttp.ClientResponse:
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        response = await self.session.post(
            f"https://127.0.0.1:{self.settings.port}/mutate",
            data=data,
            headers={"Content-Type": "application/json", **keywords.pop("headers", {})},
            ssl=self.trusting(),
            server_hostname="webhook.ipvlan-bandwidth.svc",
            **keywords,
        )
        await response.read()
        return response

    async def answer(self, body: object) -> Json:
        return await self.answer_to(json.dumps(body).encode())

    async def answer_to(self, body: bytes) -> Json:
        response = await self.post(body)
        assert response.status == 200
        answer: Json = (await response.json())["response"]
        return answer


@dataclass
class Raw:
    """A connection of which each byte is chosen."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def to(cls, up: Running) -> Self:
        return cls(
            *await asyncio.open_connection(
                "127.0.0.1", up.settings.port, ssl=up.trusting(), server_hostname="webhook.ipvlan-bandwidth.svc"
            )
        )

    async def status_after(self, *parts: bytes) -> int:
        for part in parts:
            self.writer.write(part)
        async with asyncio.timeout(10):
            return int((await self.reader.readuntil(b"\r\n")).split()[1])

    async def is_closed(self) -> None:
        async with asyncio.timeout(10):
            while await self.reader.read(65536):
                pass
        self.writer.close()


@asynccontextmanager
async def running(
    api: FakeApi, *, drains: bool = False, look: Callable[[float], Awaitable[None]] = asyncio.sleep, **changes: Any
) -> AsyncIterator[Running]:
    """With `drains` it goes on draining until it is told, however slow the machine is; `look` is between looks then."""
    settings = settings_of(parsed("--listen", "127.0.0.1"))
    port, health_port = free_ports(2)
    settings = replace(settings, port=port, health_port=health_port, drain_s=0.0, linger_s=0.0)
    settings = replace(settings, **changes)
    stop, begun, drained = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def sleep(seconds: float) -> None:
        if begun.is_set():
            await look(seconds)
            return
        begun.set()
        await (drained.wait() if drains else asyncio.sleep(seconds))

    task = asyncio.create_task(serve(settings, api, stop, sleep))
    # What is scraped is as it is now.
    with patch.object(pages, "METRICS_CACHE_S", 0.0):
        async with aiohttp.ClientSession() as session:
            yield Running(api, settings, stop, task, session, begun, drained)
    stop.set()
    drained.set()
    await task


@asynccontextmanager
async def serving(api: FakeApi | None = None, **changes: Any) -> AsyncIterator[Running]:
    """One that is ready, by default in a cluster whose namespace shop has opted in."""
    async with running(api or shop(), **changes) as up:
        await up.ready()
        yield up
