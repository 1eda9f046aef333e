"""Events are posted in the background, bounded in number, and never in anyone's way."""

import asyncio
from datetime import UTC, datetime

import pytest

from reconciler.events import ROOM_FOR_NODE, Events
from reconciler.pods import PodView
from reconciler.report import Notice
from tests.waiting import turns
from webhook.common.kubeapi import ApiError

POD = PodView("u1", "shop", "web-0")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NOTICE = Notice("BandwidthLimited", "limited")


class Api:
    """Answers with what it was given, in turn; then accepts."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.posted = []

    async def create(self, path, body):
        if self.answers:
            raise self.answers.pop(0)
        self.posted.append((path, body))
        return body


def make(api, *, monotonic=lambda: 0.0, gate=None, **kwargs):
    dropped, slept = [], []

    async def sleep(seconds):
        slept.append(seconds)
        if gate:
            await gate.wait()

    events = Events(
        api,
        node="node1",
        utcnow=lambda: NOW,
        monotonic=monotonic,
        sleep=sleep,
        suffix=lambda: "abc",
        on_dropped=lambda: dropped.append(1),
        **kwargs,
    )
    return events, dropped, slept


def tell_of_many(events, count):
    for number in range(count):
        events.record(PodView(f"u{number}", "shop", f"web-{number}"), NOTICE)


async def drain(events):
    task = asyncio.create_task(events.run())
    await turns(50)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_event_is_posted_to_the_pods_namespace():
    api = Api()
    events, dropped, _ = make(api)
    events.record(POD, NOTICE)
    await drain(events)
    assert [path for path, _ in api.posted] == ["/api/v1/namespaces/shop/events"]
    assert not dropped


async def test_an_api_server_that_is_away_is_asked_again():
    api = Api(ApiError(0, "", "connection refused"), ApiError(503, "", "busy"))
    events, dropped, slept = make(api)
    events.record(POD, NOTICE)
    await drain(events)
    assert len(api.posted) == 1
    assert slept == [1.0, 2.0]
    assert not dropped


async def test_an_event_that_is_there_as_only_the_answer_was_lost_is_posted():
    api = Api(ApiError(0, "", "reset"), ApiError(409, "AlreadyExists", "it exists"))
    events, dropped, slept = make(api)
    events.record(POD, NOTICE)
    await drain(events)
    assert (slept, dropped) == ([1.0], [])


async def test_a_conflict_about_something_else_is_tried_again_and_a_server_that_asks_for_time_is_given_it():
    conflict = ApiError(409, "Conflict", "cannot be fulfilled on resourcequotas")
    api = Api(conflict, ApiError(429, "TooManyRequests", "later", retry_after_s=7))
    events, dropped, slept = make(api)
    events.record(POD, NOTICE)
    await drain(events)
    assert (slept, dropped, len(api.posted)) == ([1.0, 7], [], 1)


async def test_a_refusal_is_final():
    api = Api(ApiError(404, "NotFound", "namespace is gone"))
    events, dropped, slept = make(api)
    events.record(POD, NOTICE)
    await drain(events)
    assert (api.posted, slept, len(dropped)) == ([], [], 1)


async def test_an_api_server_that_has_just_started_and_refuses_everybody_costs_no_event(caplog):
    early = ApiError(403, "Forbidden", 'events is forbidden: User "reconciler" cannot create resource "events"')
    api = Api(*[early] * 5, *[ApiError(401, "Unauthorized", "Unauthorized")] * 5)
    events, dropped, _ = make(api)
    tell_of_many(events, 5)
    await drain(events)
    assert (len(api.posted), dropped) == (5, [])
    assert not [record for record in caplog.records if record.levelname == "WARNING"], "the rights are there"


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "delete the reconciler's Pod of this node"), (403, "ClusterRole")]
)
async def test_that_events_are_forbidden_for_good_is_a_warning_but_not_for_each_of_them(status, remedy, caplog):
    refusal = ApiError(status, "Forbidden", "events is forbidden")
    now = [0.0]
    events, dropped, slept = make(Api(*[refusal] * 24), monotonic=lambda: now[0])
    for seconds in (0.0, 1.0, 1.0, 3600.0):
        now[0] += seconds
        events.record_node(NOTICE)
        await drain(events)
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2
    assert f"may not create events: HTTP {status} (events is forbidden)" in warnings[0].message
    assert remedy in warnings[0].message
    assert len(dropped) == 4
    assert slept == [1.0, 2.0, 4.0, 8.0, 16.0] * 4


async def test_a_namespace_that_is_going_is_no_warning(caplog):
    going = "events is forbidden: unable to create new content in namespace shop because it is being terminated"
    events, dropped, _ = make(Api(ApiError(403, "Forbidden", going)))
    events.record(POD, NOTICE)
    await drain(events)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(dropped) == 1


async def test_a_quota_that_is_used_up_is_not_told_as_a_right_that_is_missing(caplog):
    quota = 'events "web-0.abc" is forbidden: exceeded quota: few, requested: count/events=1, used: 9, limited: 9'
    events, dropped, _ = make(Api(ApiError(403, "Forbidden", quota)))
    events.record(POD, NOTICE)
    await drain(events)
    assert "may not create events" not in caplog.text
    assert len(dropped) == 1


@pytest.mark.parametrize("reason", ["Unreachable", "Timeout"])
async def test_an_outage_of_half_a_minute_costs_no_event(reason):
    events, dropped, slept = make(Api(*[ApiError(0, reason, "no answer")] * 5))
    events.record(POD, NOTICE)
    await drain(events)
    assert (sum(slept), dropped) == (31.0, [])


@pytest.mark.parametrize(("status", "told"), [(500, True), (0, False)])
async def test_after_a_few_tries_an_event_is_dropped_and_counted_and_told_if_it_was_refused(status, told, caplog):
    caplog.set_level("INFO", "reconciler.events")
    api = Api(*[ApiError(status, "", "broken")] * 3)
    events, dropped, _ = make(api, tries=3)
    events.record(POD, NOTICE)
    await drain(events)
    assert len(dropped) == 1
    assert ("event refused" in caplog.text) is told


async def test_a_full_queue_drops_and_never_waits_and_has_room_for_the_nodes():
    api = Api()
    events, dropped, _ = make(api, capacity=1)
    events.record(POD, NOTICE)
    events.record(POD, NOTICE)
    events.record_node(NOTICE)
    assert len(dropped) == 1
    for _ in range(ROOM_FOR_NODE):
        events.record_node(NOTICE)
    assert len(dropped) == 2
    await drain(events)
    assert [event["involvedObject"]["kind"] for _, event in api.posted[:2]] == ["Node", "Node"]
    assert len(api.posted) == 1 + ROOM_FOR_NODE
    events.record(POD, NOTICE)
    assert len(dropped) == 2, "there is room again"


async def test_what_is_left_at_the_end_is_posted_the_nodes_first_and_later_events_count_as_dropped():
    api = Api(ApiError(500, "", "broken"))
    events, dropped, _ = make(api)
    events.record(POD, NOTICE)
    events.record_node(NOTICE)
    events.record(POD, NOTICE)
    await events.finish(asyncio.create_task(events.run()))
    assert [event["involvedObject"]["kind"] for _, event in api.posted] == ["Pod", "Pod"]
    assert len(dropped) == 1, "the first was the Node's, and was refused"
    events.record(POD, NOTICE)
    assert len(dropped) == 2


async def test_what_is_told_while_the_last_events_are_posted_is_posted_too_the_nodes_first():
    class Slow(Api):
        async def create(self, path, body):
            if not self.posted:
                events.record(POD, NOTICE)
                events.record_node(NOTICE)
            return await super().create(path, body)

    api = Slow()
    events, dropped, _ = make(api)
    events.record(POD, NOTICE)
    await events.finish(asyncio.create_task(events.run()))
    assert [event["involvedObject"]["kind"] for _, event in api.posted] == ["Pod", "Node", "Pod"]
    assert dropped == []


async def test_the_end_is_not_waited_for_and_what_is_not_posted_by_then_is_counted(caplog):
    class Silent(Api):
        async def create(self, _path, _body):
            await asyncio.Event().wait()

    events, dropped, _ = make(Silent())
    for _ in range(3):
        events.record(POD, NOTICE)
    run = asyncio.create_task(events.run())
    await asyncio.sleep(0)
    await asyncio.wait_for(events.finish(run, 0.01), 5)
    assert len(dropped) == 3
    assert "events were not posted before the end" in caplog.text


async def test_one_pod_cannot_flood_and_a_new_pod_starts_afresh():
    events, dropped, _ = make(Api())
    for _ in range(25):
        events.record(POD, NOTICE)
    assert len(dropped) == 5
    events.forget("u1")
    events.record(POD, NOTICE)
    assert len(dropped) == 5


async def test_a_pod_that_is_repaired_all_the_time_is_still_told_of_other_things(caplog):
    caplog.set_level("INFO", "reconciler.events")
    api = Api()
    events, dropped, _ = make(api)
    for _ in range(25):
        events.record(POD, Notice("BandwidthRepaired", "again"))
    events.record(POD, Notice("BandwidthChanged", "changed"))
    await drain(events)
    reasons = [event["reason"] for _, event in api.posted]
    assert reasons == ["BandwidthRepaired"] * 20 + ["BandwidthChanged"]
    assert len(dropped) == 5
    assert len(caplog.records) == 21


async def test_an_event_on_the_node_is_where_describe_looks_for_it():
    api = Api()
    events, _, _ = make(api)
    events.record_node(NOTICE)
    await drain(events)
    ((path, event),) = api.posted
    assert path == "/api/v1/namespaces/default/events"
    assert event["involvedObject"] == {"apiVersion": "v1", "kind": "Node", "name": "node1", "uid": "node1"}
    assert event["metadata"] == {"name": "node1.abc", "namespace": "default"}
