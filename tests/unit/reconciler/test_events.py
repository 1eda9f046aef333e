"""Events are posted in the background, bounded in number, and never in anyone's way."""

import asyncio
from datetime import UTC, datetime

import pytest

from reconciler.events import Events
from reconciler.pods import PodView
from reconciler.report import Notice
from webhook.kubeapi import ApiError

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


def make(api, *, clock=lambda: 0.0, **kwargs):
    dropped, slept = [], []

    async def sleep(seconds):
        slept.append(seconds)

    events = Events(
        api,
        node="node1",
        clock=lambda: NOW,
        monotonic=clock,
        sleep=sleep,
        suffix=lambda: "abc",
        on_dropped=lambda: dropped.append(1),
        **kwargs,
    )
    return events, dropped, slept


async def drain(events):
    task = asyncio.create_task(events.run())
    for _ in range(50):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_event_is_posted_to_the_pods_namespace():
    api = Api()
    events, dropped, _ = make(api)
    events.tell(POD, NOTICE)
    await drain(events)
    assert [path for path, _ in api.posted] == ["/api/v1/namespaces/shop/events"]
    assert not dropped


async def test_an_api_server_that_is_away_is_asked_again():
    api = Api(ApiError(0, "", "connection refused"), ApiError(503, "", "busy"))
    events, dropped, slept = make(api)
    events.tell(POD, NOTICE)
    await drain(events)
    assert len(api.posted) == 1
    assert slept == [1.0, 2.0]
    assert not dropped


async def test_an_event_that_is_there_as_only_the_answer_was_lost_is_posted():
    api = Api(ApiError(0, "", "reset"), ApiError(409, "AlreadyExists", "it exists"))
    events, dropped, slept = make(api)
    events.tell(POD, NOTICE)
    await drain(events)
    assert (slept, dropped) == ([1.0], [])


async def test_a_refusal_is_final():
    api = Api(ApiError(404, "NotFound", "namespace is gone"))
    events, dropped, slept = make(api)
    events.tell(POD, NOTICE)
    await drain(events)
    assert (api.posted, slept, len(dropped)) == ([], [], 1)


@pytest.mark.parametrize(("status", "remedy"), [(401, "delete this Pod"), (403, "ClusterRole")])
async def test_that_events_are_forbidden_is_a_warning_but_not_for_each_of_them(status, remedy, caplog):
    refusal = ApiError(status, "Forbidden", "events is forbidden")
    now = [0.0]
    events, dropped, _ = make(Api(*[refusal] * 4), clock=lambda: now[0])
    for seconds in (0.0, 1.0, 1.0, 3600.0):
        now[0] += seconds
        events.tell_node(NOTICE)
        await drain(events)
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2
    assert f"may not create events: HTTP {status} (events is forbidden)" in warnings[0].message
    assert remedy in warnings[0].message
    assert len(dropped) == 4


async def test_a_namespace_that_is_going_is_no_warning(caplog):
    going = "events is forbidden: unable to create new content in namespace shop because it is being terminated"
    events, dropped, _ = make(Api(ApiError(403, "Forbidden", going)))
    events.tell(POD, NOTICE)
    await drain(events)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(dropped) == 1


async def test_after_a_few_tries_an_event_is_dropped_and_counted():
    api = Api(*[ApiError(500, "", "broken")] * 3)
    events, dropped, _ = make(api, tries=3)
    events.tell(POD, NOTICE)
    await drain(events)
    assert len(dropped) == 1


async def test_a_full_queue_drops_and_never_waits():
    events, dropped, _ = make(Api(), capacity=1)
    events.tell(POD, NOTICE)
    events.tell(POD, NOTICE)
    assert len(dropped) == 1


async def test_one_pod_cannot_flood_and_a_new_pod_starts_afresh():
    events, dropped, _ = make(Api())
    for _ in range(25):
        events.tell(POD, NOTICE)
    assert len(dropped) == 5
    events.forget("u1")
    events.tell(POD, NOTICE)
    assert len(dropped) == 5


async def test_a_pod_that_is_repaired_all_the_time_is_still_told_of_other_things(caplog):
    caplog.set_level("INFO", "reconciler.events")
    api = Api()
    events, dropped, _ = make(api)
    for _ in range(25):
        events.tell(POD, Notice("BandwidthRepaired", "again"))
    events.tell(POD, Notice("BandwidthChanged", "changed"))
    await drain(events)
    reasons = [event["reason"] for _, event in api.posted]
    assert reasons == ["BandwidthRepaired"] * 20 + ["BandwidthChanged"]
    assert len(dropped) == 5
    assert len(caplog.records) == 21


async def test_an_event_on_the_node_is_where_describe_looks_for_it():
    api = Api()
    events, _, _ = make(api)
    events.tell_node(NOTICE)
    await drain(events)
    ((path, event),) = api.posted
    assert path == "/api/v1/namespaces/default/events"
    assert event["involvedObject"] == {"apiVersion": "v1", "kind": "Node", "name": "node1", "uid": "node1"}
    assert event["metadata"] == {"name": "node1.abc", "namespace": "default"}
