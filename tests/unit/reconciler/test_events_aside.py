"""What one namespace refuses or leaves unanswered waits aside: neither others' events nor the Node's wait for it."""

import asyncio

from reconciler.pods import PodView
from tests.unit.reconciler.test_events import NOTICE, POD, Api, drain, make, tell_of_many
from tests.waiting import background, turns
from webhook.common.kubeapi import ApiError


class Refusing(Api):
    """Posts to any namespace but one take no time; that one's admission webhook is away."""

    async def create(self, path, body):
        if "/shop/" in path:
            raise ApiError(500, "InternalError", 'failed calling webhook "policy"')
        return await super().create(path, body)


async def test_what_one_namespace_refuses_for_a_while_holds_up_no_others_event():
    gate, api = asyncio.Event(), Refusing()
    events, dropped, _ = make(api, gate=gate, capacity=6)
    tell_of_many(events, 5)
    events.record(PodView("u9", "other", "web-9"), NOTICE)
    async with background(events.run()):
        await turns()
        assert [event["involvedObject"]["name"] for _, event in api.posted] == ["web-9"]
        events.record(PodView("u9", "other", "web-9"), NOTICE)
        events.record(PodView("u9", "other", "web-9"), NOTICE)
        events.record_node(NOTICE)
        assert len(dropped) == 1, "those that wait aside take room"
        gate.set()
        await turns(200)
        assert len(api.posted) == 4
        assert len(dropped) == 5


class Unanswered(Api):
    """Answers nothing to what is of one namespace."""

    tries = 0

    async def create(self, path, body):
        if "/shop/" in path:
            self.tries += 1
            raise ApiError(0, "Timeout", "not answered within 30 s")
        return await super().create(path, body)


async def test_what_one_namespace_leaves_unanswered_holds_up_no_others_event():
    api = Unanswered()
    events, dropped, _ = make(api, gate=asyncio.Event())
    tell_of_many(events, 5)
    events.record(PodView("u9", "other", "web-9"), NOTICE)
    async with background(events.run()):
        await turns()
        assert [event["involvedObject"]["name"] for _, event in api.posted] == ["web-9"]
        assert api.tries == 1, "it takes half a minute, while others wait"
        events.record_node(NOTICE)
        await turns()
        assert [event["involvedObject"]["kind"] for _, event in api.posted] == ["Pod", "Node"]
        assert not dropped


class Hangs(Api):
    """What is of one namespace takes for ever when it is tried again; the first of all others is refused once."""

    tries = refused = 0

    async def create(self, path, body):
        if "/shop/" in path:
            self.tries += 1
            if self.tries > 1:
                await asyncio.sleep(3600)
            raise ApiError(0, "Timeout", "not answered within 30 s")
        self.refused += 1
        if self.refused == 1:
            raise ApiError(500, "InternalError", "later")
        return await super().create(path, body)


async def test_what_one_namespace_leaves_unanswered_holds_up_no_event_that_was_refused_once():
    events, dropped, _ = make(Hangs())
    tell_of_many(events, 10)
    async with background(events.run()):
        await turns()
        events.record_node(NOTICE)
        await turns()
        assert [event["involvedObject"]["kind"] for _, event in events._api.posted] == ["Node"]
        assert not dropped


class Hanging(Refusing):
    """From the second time on it is long refused, as by an admission webhook that does not answer."""

    tries = 0

    async def create(self, path, body):
        self.tries += "/shop/" in path
        if self.tries > 1 and "/shop/" in path:
            await asyncio.sleep(3600)
        return await super().create(path, body)


async def test_what_hangs_when_it_is_tried_again_holds_up_no_others_event():
    api = Hanging()
    events, _, _ = make(api)
    events.record(POD, NOTICE)
    async with background(events.run()):
        await turns()
        events.record(PodView("u9", "other", "web-9"), NOTICE)
        await turns()
        assert api.tries == 2
        assert [event["involvedObject"]["name"] for _, event in api.posted] == ["web-9"]


async def test_what_waits_aside_ends_with_the_work():
    events, dropped, _ = make(Api(ApiError(500, "", "broken")), gate=asyncio.Event())
    events.record(POD, NOTICE)
    await drain(events)
    await asyncio.sleep(0)
    assert not events._aside
    assert not dropped
