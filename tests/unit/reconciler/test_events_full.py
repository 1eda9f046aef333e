"""Where the queue is full, the newest event of the namespace that has most in it makes room for another's."""

import asyncio
from collections import Counter

from reconciler.pods import PodView
from reconciler.report import Notice
from tests.unit.reconciler.test_events import NOTICE, Api, drain, make, tell_of_many
from tests.waiting import background, turns
from webhook.common.kubeapi import ApiError


def tell_of_another(events, number=0):
    events.record(PodView(f"b{number}", "bank", "db-0"), NOTICE)


def names(api):
    return [event["involvedObject"]["name"] for _, event in api.posted]


async def test_the_events_of_one_namespace_push_out_none_of_another():
    api = Api()
    events, dropped, _ = make(api, capacity=10)
    tell_of_many(events, 12)
    assert len(dropped) == 2
    for number in range(7):
        tell_of_another(events, number)
    assert len(dropped) == 9
    await drain(events)
    assert names(api) == [*(f"web-{number}" for number in range(5)), *["db-0"] * 5], "the newest made room"
    tell_of_many(events, 12)
    await drain(events)
    assert Counter(names(api))["web-9"] == 1, "there is room again for whoever comes first"
    assert len(dropped) == 11


async def test_the_nodes_events_push_out_none_of_a_pod():
    api = Api()
    events, dropped, _ = make(api, capacity=2)
    tell_of_many(events, 2)
    for _ in range(100):
        events.record_node(NOTICE)
    assert len(dropped) == 50
    await drain(events)
    assert names(api) == [*["node1"] * 50, "web-0", "web-1"]


async def test_what_waits_aside_to_be_tried_again_is_pushed_out_too_and_tried_no_more():
    gate, api = asyncio.Event(), Api(*[ApiError(500, "InternalError", "later")] * 3)
    events, dropped, _ = make(api, gate=gate, capacity=3)
    tell_of_many(events, 3)
    async with background(events.run()):
        await turns()
        tell_of_another(events)
        assert len(dropped) == 1
        gate.set()
        await turns(50)
    assert sorted(names(api)) == ["db-0", "web-0", "web-1"]
    assert events._unposted == events._of_pods == {}


async def test_what_is_pushed_out_as_it_is_being_posted_is_counted_once():
    class Slow(Api):
        answer = asyncio.Event()

        async def create(self, path, body):
            if body["involvedObject"]["name"] == "web-1":
                await self.answer.wait()
                raise ApiError(422, "Invalid", "no")
            return await super().create(path, body)

    api = Slow(ApiError(500, "InternalError", "later"))
    events, dropped, _ = make(api, gate=asyncio.Event(), capacity=2)
    tell_of_many(events, 2)
    async with background(events.run()):
        await turns()
        for number in range(2):
            events.record(PodView(f"b{number}", "bank", "db-0"), Notice("BandwidthFailed", "failed"))
        assert len(dropped) == 2, "one was pushed out, and the other namespace has as many then"
        api.answer.set()
        await turns(50)
    assert names(api) == ["db-0"]
    assert len(dropped) == 2
