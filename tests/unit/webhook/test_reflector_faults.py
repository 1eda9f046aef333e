"""The reflector over HTTP, with an API server that goes away, forgets, hangs, babbles, and comes back."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web

from tests.unit.webhook.api_server import PATH, ApiServer
from tests.waiting import PATIENCE_S, background, until
from webhook.common.kubeapi import KubeApi
from webhook.common.reflector import Reflector


class View:
    """What a caller of the reflector holds; waits between tries are as long as `pace` says, and remembered."""

    def __init__(self, api: KubeApi, *, pace: float = 0.0, uniform: Callable[[], float] = lambda: 1.0) -> None:
        self.pods: dict[str, str] = {}
        self.events = 0
        self.slept: list[float] = []
        self._pace = pace
        self.reflector = Reflector(
            api, PATH, params={}, on_sync=self._sync, on_event=self._event, sleep=self._sleep, uniform=uniform
        )

    def _sync(self, items: list[dict[str, Any]]) -> None:
        self.pods = {each["metadata"]["name"]: each["metadata"]["labels"]["value"] for each in items}

    def _event(self, kind: str, item: dict[str, Any]) -> None:
        self.events += 1
        metadata = item["metadata"]
        if kind == "DELETED":
            self.pods.pop(metadata["name"], None)
        else:
            self.pods[metadata["name"]] = metadata["labels"]["value"]

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(self._pace)


class Others:
    """Whoever else is served by the event loop: how often they had their turn."""

    turns = 0

    async def run(self) -> None:
        while True:
            self.turns += 1
            await asyncio.sleep(0)


class Slow(ApiServer):
    """Lists its first Pod, and the others when that is taken."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.taken = asyncio.Event()
        self._number = number

    async def _list(self, request: web.Request) -> web.StreamResponse:
        first, *others = (json.dumps(self.pod(f"pod-{number}", "")) for number in range(self._number))
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(f'{{"metadata":{{"resourceVersion":"7"}},"items":[{first},'.encode())
        await self.taken.wait()
        await response.write(",".join(others).encode() + b"]}")
        return response


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    made = ApiServer()
    await made.start()
    await made.put("a", "b", value="100M")
    yield made
    await made.stop()


@asynccontextmanager
async def following(server: ApiServer, *, silence_s: float = 60.0) -> AsyncIterator[View]:
    api = server.api(watch_silence_s=silence_s)
    view = View(api, pace=0.005)
    try:
        async with background(view.reflector.run()) as task:
            await until(lambda: view.reflector.synced.is_set() and bool(server.watches))
            yield view
            assert not task.done()
    finally:
        await api.close()


async def test_an_api_server_that_was_gone_for_long_is_caught_up_with_and_not_listed_again(server: ApiServer) -> None:
    async with following(server) as view:
        await server.stop()
        await server.put("a", value="20M")
        await server.put("b", kind="DELETED")
        await until(lambda: len(view.slept) >= 20)
        assert view.pods == {"a": "100M", "b": "100M"}
        assert not view.reflector.connected
        await server.start()
        await until(lambda: view.pods == {"a": "20M"})
    assert len(server.lists) == 1
    assert max(view.slept) == 30


async def test_a_watch_stands_before_anything_is_told_on_it(server: ApiServer) -> None:
    async with following(server) as view:
        await until(lambda: view.reflector.connected)
        await server.stop()
        await until(lambda: not view.reflector.connected)
        await server.start()
        await until(lambda: view.reflector.connected)
        assert view.events == 0


async def test_an_api_server_that_forgot_meanwhile_is_listed_again_without_asking_etcd(server: ApiServer) -> None:
    async with following(server) as view:
        await server.stop()
        await server.put("a", value="20M")
        await server.put("c", value="1M")
        await server.put("b", kind="DELETED")
        await server.compact()
        await server.start()
        await until(lambda: view.pods == {"a": "20M", "c": "1M"})
        await server.put("d", value="2M")
        await until(lambda: "d" in view.pods)
    assert [asked.get("resourceVersion") for asked in server.lists] == ["0", "12"]
    assert 10.0 in view.slept


async def test_a_connection_on_which_nothing_comes_is_left_and_what_was_missed_is_found(server: ApiServer) -> None:
    async with following(server, silence_s=0.2) as view:
        server.is_deaf = True
        await server.put("a", value="20M")
        await until(lambda: len(server.watches) >= 3)
        assert len(server.lists) >= 2
        server.is_deaf = False
        await server.put("b", kind="DELETED")
        await until(lambda: view.pods == {"a": "20M"})
        await server.put("a", value="30M")
        await until(lambda: view.pods["a"] == "30M")


async def test_a_store_that_began_again_lower_is_noticed_by_its_silence(server: ApiServer) -> None:
    async with following(server, silence_s=0.1) as view:
        await server.stop()
        server.pods, server.version, server._history = {}, 3, []
        await server.put("restored", value="1M")
        await server.start()
        await until(lambda: view.pods == {"restored": "1M"})
        await server.put("a", value="2M")
        await until(lambda: view.pods == {"restored": "1M", "a": "2M"})


async def test_a_storm_of_events_is_taken_whole_and_in_order_and_others_are_served_meanwhile(
    server: ApiServer,
) -> None:
    async with following(server) as view:
        others = Others()
        async with background(others.run()):
            for round_ in range(20):
                await server.put(*(f"pod-{number}" for number in range(500)), value=str(round_))
            await until(lambda: view.events == 10_000)
        assert all(view.pods[f"pod-{number}"] == "19" for number in range(500))
        assert others.turns >= 10_000
    assert view.slept == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"<html>a proxy</html>\n",
        b'{"type": "ADDED"}\n',
        b'{"type": "ADDED", "object": {"metadata": {}}}\n',
        b'{"type": "ADDED", "object": []}\n',
        b'{"type": 7, "object": {}}\n',
        b"\xff\xfe\n",
        b"[]\n",
        b'{"type": "ERROR", "object": {"code": 500, "reason": "InternalError", "message": "etcd"}}\n',
        b'{"type": "ERROR", "object": {}}\n',
    ],
)
async def test_what_is_no_event_is_left_behind_by_a_fresh_list(server: ApiServer, garbage: bytes) -> None:
    async with following(server) as view:
        await server.send(garbage)
        await until(lambda: len(server.lists) == 2)
        await server.put("a", value="20M")
        await until(lambda: view.pods["a"] == "20M")


async def test_an_event_that_never_ends_is_bounded(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook.common.kubeapi._LONGEST_EVENT_BYTES", 10_000)
    async with following(server):
        await server.send(b"x" * 20_000)
        await until(lambda: len(server.lists) == 2)


async def test_a_huge_list_comes_in_pages(server: ApiServer) -> None:
    await server.put(*(f"pod-{number:05}" for number in range(7_000)))
    async with following(server) as view:
        assert len(view.pods) == 7_002
    assert [asked["limit"] for asked in server.lists] == ["500"] * 15
    assert [asked.get("continue") for asked in server.lists[:2]] == [None, "500"]


async def test_an_object_of_a_list_is_taken_and_let_go_before_the_next_one_has_come_and_others_are_served() -> None:
    """As the whole list may be more than the memory, and its reading longer than others can wait."""
    server, taken = Slow(number=300), list[str]()
    await server.start()
    api = server.api()

    def keep(item: dict[str, Any]) -> str:
        server.taken.set()
        taken.append(item["metadata"]["name"])
        return taken[-1]

    others, synced = Others(), list[str]()
    reflector = Reflector(api, PATH, params={}, keep=keep, on_sync=synced.extend, on_event=lambda *_: None)
    async with background(reflector.run()), background(others.run()), asyncio.timeout(PATIENCE_S):
        await reflector.synced.wait()
    await api.close()
    await server.stop()
    assert synced == taken == [f"pod-{number}" for number in range(300)]
    assert others.turns > 300


async def test_many_nodes_come_back_spread_and_list_nothing(server: ApiServer) -> None:
    api = server.api()
    views = [View(api, pace=0.02, uniform=lambda number=number: (number + 0.5) / 60) for number in range(60)]
    tasks = [asyncio.create_task(view.reflector.run()) for view in views]
    await until(lambda: len(server.watches) == 60)
    await server.stop()
    await until(lambda: all(len(view.slept) >= 8 for view in views))
    await server.start()
    await server.put("a", value="20M")
    await until(lambda: all(view.pods["a"] == "20M" for view in views))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await api.close()
    assert len(server.lists) == 60
    seventh = sorted(view.slept[6] for view in views)
    gaps = [after - before for before, after in pairwise(seventh)]
    assert max(gaps) < 1  # of 30 s in all: no two seconds of it have more than their share
    assert seventh[-1] - seventh[0] > 25
