"""Events on the Deployment: what they say, where kubectl finds them, and that there are never too many."""

import asyncio
import logging
from datetime import UTC, datetime

import pytest

from certs.changes import Change, Kind
from tests.unit.webhook.fake_api import DEPLOYMENT, EVENTS, FakeApi, Json
from tests.waiting import background, turns
from webhook.certificate_events import BURST, MOST_WAITING, PERIOD_S, CertificateEvents

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
REPAIRED = Change(Kind.BUNDLE_REPAIRED, "the caBundle was missing, and was put back")


def notices(api: FakeApi, times: list[float] | None = None) -> CertificateEvents:
    told = times or [0.0]
    return CertificateEvents(api, "ipvlan-bandwidth", "webhook", monotonic=lambda: told[-1], utcnow=lambda: NOW)


async def tell(here: CertificateEvents, *changes: Change) -> None:
    here.record(changes)
    posting = asyncio.create_task(here.run())
    while not here._waiting.empty():  # noqa: ASYNC110 - the API server answers at once
        await asyncio.sleep(0)
    posting.cancel()


def events(api: FakeApi) -> list[Json]:
    return [each for path, each in api.objects.items() if path.startswith(EVENTS)]


async def test_an_event_is_about_the_deployment_that_is_there_and_says_what_happened() -> None:
    api = FakeApi()
    await tell(notices(api), REPAIRED)
    (event,) = events(api)
    assert event["involvedObject"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "webhook",
        "namespace": "ipvlan-bandwidth",
        "uid": "d-1",
    }
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "CABundleRepaired", REPAIRED.text)
    assert event["lastTimestamp"] == "2026-03-01T12:00:00Z"


async def test_damage_is_a_warning_and_a_rotation_is_not() -> None:
    api = FakeApi()
    changes = [Change(kind, "why") for kind in Kind]
    await tell(notices(api), *changes)
    assert api.posted() == [
        ("Normal", "CertificatesMade"),
        ("Warning", "CertificatesRestored"),
        ("Normal", "CAAnnounced"),
        ("Normal", "CARotated"),
        ("Normal", "CertificateRenewed"),
        ("Normal", "CARetired"),
        ("Warning", "CABundleRepaired"),
        ("Warning", "CertificatesStuck"),
    ]


async def test_nothing_is_asked_for_when_there_is_nothing_to_say() -> None:
    api = FakeApi()
    await tell(notices(api))
    await tell(notices(api), Change(Kind.PUBLISHED, "as ever"))
    assert api.calls == []


async def test_a_fight_over_the_bundle_fills_no_etcd() -> None:
    api = FakeApi()
    times = [0.0]
    here = notices(api, times)
    for _ in range(100):
        await tell(here, REPAIRED)
    assert len(events(api)) == BURST
    times.append(2.5 * PERIOD_S)
    for _ in range(100):
        await tell(here, REPAIRED)
    assert len(events(api)) == BURST + 2


@pytest.mark.parametrize("missing", [False, True])
async def test_an_event_that_cannot_be_posted_is_in_the_log(missing: bool, caplog: pytest.LogCaptureFixture) -> None:
    api = FakeApi()
    api.down = not missing
    if missing:
        del api.objects[DEPLOYMENT]
    with caplog.at_level(logging.WARNING):
        await tell(notices(api), REPAIRED)
    assert "cannot post an event" in caplog.text


@pytest.mark.parametrize("answer", [{}, {"metadata": None}, {"metadata": {}}])
async def test_an_answer_of_another_shape_costs_no_event_but_its_own(
    answer: Json, caplog: pytest.LogCaptureFixture
) -> None:
    api = FakeApi()
    good, api.objects[DEPLOYMENT] = api.objects[DEPLOYMENT], answer
    here = notices(api)
    async with background(here.run()):
        here.record([REPAIRED])
        await turns()
        assert f"cannot post an event: the API server's answer to GET {DEPLOYMENT} has no uid" in caplog.text
        api.objects[DEPLOYMENT] = good
        here.record([REPAIRED])
        await turns()
    assert len(events(api)) == 1


async def test_a_long_message_is_cut_where_the_api_server_would_refuse_it() -> None:
    api = FakeApi()
    await tell(notices(api), Change(Kind.MADE, "é" * 2000))
    (event,) = events(api)
    assert len(event["message"].encode()) <= 1024


def test_while_the_api_server_takes_none_some_wait_and_the_others_are_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    times = [0.0]
    here = notices(FakeApi(), times)
    for number in range(MOST_WAITING + 5):
        times.append(number * PERIOD_S)
        here.record([REPAIRED])
    assert caplog.messages == [f"no event, as too many wait for the API server: {REPAIRED.text}"] * 5
