"""The cache of Namespaces: what a Pod's Namespace decides, and when the API server is asked for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.unit.webhook.fake_api import NAMESPACES, FakeApi, namespace, shop
from tests.waiting import background
from webhook.common.kubeapi import ApiError
from webhook.namespaces import ASKED_IN_A_BURST, MOST_WAITING, Namespaces
from webhook.policy import Policy


@asynccontextmanager
async def running(api: FakeApi) -> AsyncIterator[Namespaces]:
    namespaces = Namespaces(api)
    async with background(namespaces.run()):
        await namespaces.synced.wait()
        await api.watching.wait()
        yield namespaces


async def tell(api: FakeApi, kind: str, item: dict[str, object]) -> None:
    await api.events.put({"type": kind, "object": item})
    await asyncio.sleep(0.001)


async def test_a_listed_namespace_decides_without_a_call() -> None:
    api = shop()
    async with running(api) as namespaces:
        calls = list(api.calls)
        assert await namespaces.policy_of("shop") == Policy("kube-system/ipvlan")
        assert api.calls == calls
        assert len(namespaces) == 1


async def test_a_malformed_label_is_a_problem_of_the_policy() -> None:
    async with running(FakeApi(namespace("shop", "ipvlan"))) as namespaces:
        policy = await namespaces.policy_of("shop")
        assert policy.network is None
        assert policy.problem is not None


async def test_a_namespace_that_the_watch_has_not_told_of_is_asked_for() -> None:
    api = FakeApi()
    async with running(api) as namespaces:
        api.objects[f"{NAMESPACES}/new"] = namespace("new", "kube-system.ipvlan")
        assert await namespaces.policy_of("new") == Policy("kube-system/ipvlan")
        assert api.calls[-1] == f"GET {NAMESPACES}/new"


async def test_the_api_server_is_not_asked_for_whatever_number_of_namespaces_a_stranger_names() -> None:
    api = FakeApi()
    async with running(api) as namespaces:
        before = len(api.calls)
        for number in range(ASKED_IN_A_BURST):
            await namespaces.policy_of(f"n{number}")
        refused = 0
        for number in range(10 * ASKED_IN_A_BURST):
            try:
                await namespaces.policy_of(f"m{number}")
            except ApiError as error:
                refused += error.reason == "Busy"
        assert refused > ASKED_IN_A_BURST
        assert len(api.calls) - before < 2 * ASKED_IN_A_BURST


async def test_a_namespace_that_is_gone_or_has_no_label_decides_nothing() -> None:
    async with running(FakeApi(namespace("plain"))) as namespaces:
        assert await namespaces.policy_of("plain") == Policy()
        assert await namespaces.policy_of("gone") == Policy()


async def test_a_namespace_that_cannot_be_asked_for_is_an_error() -> None:
    api = FakeApi()
    async with running(api) as namespaces:
        api.down = True
        with pytest.raises(ApiError):
            await namespaces.policy_of("new")


async def test_an_api_server_that_says_nothing_is_an_error_in_time_for_the_admission(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("webhook.namespaces.ASK_S", 0.05)
    api = FakeApi()
    asking, at_once = 0, 0

    async def silent(_path: str) -> dict[str, object]:
        nonlocal asking, at_once
        asking += 1
        at_once = max(at_once, asking)
        try:
            await asyncio.Event().wait()
        finally:
            asking -= 1
        return {}

    async with running(api) as namespaces:
        monkeypatch.setattr(api, "get", silent)
        answers = await asyncio.gather(*(namespaces.policy_of(f"n{n}") for n in range(100)), return_exceptions=True)
        # Its place is free again.
        assert (await asyncio.gather(namespaces.policy_of("n0"), return_exceptions=True))[0].reason == "Timeout"
    said = [str(each) for each in answers]
    assert said[:MOST_WAITING] == ["no answer from the API server within 0.05 s (Timeout)"] * MOST_WAITING
    # Not even when the API server says nothing do they take all connections.
    busy = "too many Namespaces that are not known to be opted in are asked for at once (Busy)"
    assert said[MOST_WAITING:] == [busy] * (100 - MOST_WAITING)
    assert (at_once, asking) == (16, 0)


async def test_changes_and_removals_of_the_label_are_followed() -> None:
    api = shop()
    async with running(api) as namespaces:
        await tell(api, "ADDED", namespace("lab", "net.one"))
        assert await namespaces.policy_of("lab") == Policy("net/one")
        await tell(api, "MODIFIED", namespace("shop", "net.two"))
        assert await namespaces.policy_of("shop") == Policy("net/two")
        api.objects[f"{NAMESPACES}/shop"] = namespace("shop")
        await tell(api, "DELETED", namespace("shop"))
        assert await namespaces.policy_of("shop") == Policy()
        await tell(api, "DELETED", namespace("never-seen"))
        assert len(namespaces) == 1
