"""The reflector against the real kube-apiserver and etcd, which die, stand still, forget, and begin again lower.

Its faster sister is tests/unit/webhook/test_reflector_faults.py; what that one's server is made to do, these do.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reconciler.pods import selector
from tests import waiting
from tests.cluster.api_only import ApiOnly
from webhook.common.kubeapi import WATCH_SILENCE_S, ApiError, KubeApi
from webhook.common.reflector import Reflector

PODS = "/api/v1/namespaces/default/pods"
MINE = {"fieldSelector": "spec.nodeName=mine"}
SILENCE_S = 4.0
until = partial(waiting.until, seconds=90)


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ApiOnly]:
    made = ApiOnly(tmp_path)
    try:
        await asyncio.to_thread(made.start)
        yield made
    finally:
        made.kill()


@asynccontextmanager
async def connected(plane: ApiOnly, silence_s: float = SILENCE_S) -> AsyncIterator[KubeApi]:
    api = await KubeApi.connect(user_agent="test", environ={"KUBECONFIG": str(plane.kubeconfig)})
    api._watch_silence_s = silence_s
    try:
        yield api
    finally:
        await api.close()


class View:
    """The limits of the Pods of one node, as the reflector tells them."""

    def __init__(self, api: KubeApi) -> None:
        self.limits: dict[str, str] = {}
        self.lists = self.restarts = 0
        self.reflector = Reflector(
            api, "/api/v1/pods", params=MINE, on_sync=self._sync, on_event=self._event, on_restart=self._restarted
        )

    def _restarted(self, _: ApiError) -> None:
        self.restarts += 1

    def _sync(self, items: list[dict[str, Any]]) -> None:
        self.lists += 1
        self.limits = {item["metadata"]["name"]: item["metadata"]["annotations"]["limit"] for item in items}

    def _event(self, kind: str, item: dict[str, Any]) -> None:
        if kind == "DELETED":
            self.limits.pop(item["metadata"]["name"], None)
        else:
            self.limits[item["metadata"]["name"]] = item["metadata"]["annotations"]["limit"]


async def create(api: KubeApi, name: str, limit: str, *, node: str = "mine") -> None:
    metadata = {"name": name, "annotations": {"limit": limit}}
    await api.create(
        PODS, {"metadata": metadata, "spec": {"nodeName": node, "containers": [{"name": "a", "image": "b"}]}}
    )


async def change(api: KubeApi, name: str, limit: str) -> None:
    body = {"metadata": {"annotations": {"limit": limit}}}
    await api.patch(f"{PODS}/{name}", body, content_type="application/merge-patch+json")


async def test_the_view_is_right_again_after_each_of_what_can_happen_to_an_api_server(plane: ApiOnly) -> None:
    async with connected(plane) as api:
        await create(api, "a", "100M")
        view = View(api)
        task = asyncio.create_task(view.reflector.run())
        await until(lambda: view.limits == {"a": "100M"})

        await change(api, "a", "20M")
        await until(lambda: view.limits == {"a": "20M"})

        plane.kill("kube-apiserver")
        await until(lambda: view.restarts > 0)
        await asyncio.to_thread(plane.start)
        await change(api, "a", "30M")
        await until(lambda: view.limits == {"a": "30M"})

        plane.stand_still(still=True)
        restarts = view.restarts
        await until(lambda: view.restarts > restarts)
        assert view.limits == {"a": "30M"}
        plane.stand_still(still=False)
        await change(api, "a", "40M")
        await until(lambda: view.limits == {"a": "40M"})

        plane.kill("kube-apiserver")
        lists = view.lists
        await asyncio.to_thread(plane.compact)
        await asyncio.to_thread(plane.start)
        await create(api, "b", "1M")
        await until(lambda: view.limits == {"a": "40M", "b": "1M"})
        assert view.lists > lists, "the watch was resumed as if nothing had been forgotten"

        plane.kill()
        copy = plane.back_up()
        await asyncio.to_thread(plane.start)
        for number in range(20):
            await change(api, "a", f"{50 + number}M")
        await until(lambda: view.limits["a"] == "69M")
        plane.kill()
        plane.restore(copy)
        await asyncio.to_thread(plane.start)
        await until(lambda: view.limits["a"] == "40M")
        await change(api, "a", "2M")
        await until(lambda: view.limits["a"] == "2M")
        print(f"WATCH {view.lists} lists, {view.restarts} restarts")
        task.cancel()


async def test_a_pod_that_finishes_leaves_the_reconcilers_list_and_watch(plane: ApiOnly) -> None:
    async with connected(plane) as api:
        for name in ("a", "b"):
            await create(api, name, "1M")
        mine = {"fieldSelector": selector("mine"), "resourceVersion": "0"}
        version = (await api.get("/api/v1/pods", mine))["metadata"]["resourceVersion"]
        finished = {"status": {"phase": "Succeeded"}}
        await api.patch(f"{PODS}/a/status", finished, content_type="application/merge-patch+json")
        watch = {**mine, "resourceVersion": version, "timeoutSeconds": "300"}
        async with aclosing(api.watch("/api/v1/pods", watch)) as events:
            (told,) = [event async for event in _first(events, "DELETED")]
        assert told["object"]["metadata"]["name"] == "a"
        listed = await api.get(
            "/api/v1/pods", {**mine, "resourceVersion": told["object"]["metadata"]["resourceVersion"]}
        )
        assert [each["metadata"]["name"] for each in listed["items"]] == ["b"]


async def test_a_watch_has_a_bookmark_for_what_others_do_before_it_is_taken_for_silent_and_lists_are_as_asked(
    plane: ApiOnly,
) -> None:
    async with connected(plane, WATCH_SILENCE_S / 2) as api:
        for number in range(5):
            await create(api, f"pod-{number}", "1M")
        of_any_version = await api.get("/api/v1/pods", {**MINE, "resourceVersion": "0", "limit": "500"})
        version = of_any_version["metadata"]["resourceVersion"]
        assert len((await api.get("/api/v1/pods", {**MINE, "resourceVersion": version}))["items"]) == 5
        page = await api.get("/api/v1/pods", {**MINE, "limit": "2"})
        assert len(page["items"]) == 2
        rest = await api.get("/api/v1/pods", {**MINE, "limit": "500", "continue": page["metadata"]["continue"]})
        assert len(rest["items"]) == 3
        with pytest.raises(ApiError) as caught:
            await api.get("/api/v1/pods", {**MINE, "resourceVersion": str(int(version) + 1_000_000)})
        assert (caught.value.status, caught.value.causes) == (504, ["ResourceVersionTooLarge"])
        await create(api, "elsewhere", "1M", node="another")
        watch = {**MINE, "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": "300"}

        async def change_another() -> None:
            await asyncio.sleep(5)  # what changed before the watch began brings no bookmark
            await change(api, "elsewhere", "2M")

        changing = asyncio.create_task(change_another())
        async with aclosing(api.watch("/api/v1/pods", watch)) as events:
            kinds = [event["type"] async for event in _first(events, "BOOKMARK")]
        await changing
        assert kinds[-1] == "BOOKMARK"


async def _first(events: Any, kind: str) -> AsyncIterator[dict[str, Any]]:
    async for event in events:
        yield event
        if event["type"] == kind:
            return
