"""Our own certificates where others damage them: mended at once, and never as often as the API server can take."""

import asyncio
import base64
import logging
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from certs.credentials import MOST_FORMER, Credentials
from certs.secret import decode
from certs.store import CredentialStore
from tests.unit.webhook.fake_api import CONFIGURATION, SECRET, FakeApi, Json
from tests.unit.webhook.running_server import parsed
from tests.waiting import background, turns
from webhook import certificate_controller
from webhook.certificate_controller import CertificateController
from webhook.common.kubeapi import ApiError
from webhook.listener import UnusableCertificateError
from webhook.metrics import Metrics
from webhook.settings import settings_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GARBAGE = base64.b64encode(b"garbage").decode()


class Nowhere:
    """A listener that only counts what it is to serve with: the real one is in test_listener and test_server."""

    def __init__(self) -> None:
        self.served: set[bytes] = set()
        self.refusals: list[Exception] = []

    @property
    def listens(self) -> bool:
        return bool(self.served)

    async def use(self, chain: bytes, _key: bytes) -> None:
        if self.refusals:
            raise self.refusals.pop()
        self.served.add(chain)


class Watched:
    """A CertificateController whose sleeps take no time, and a person who does something after each."""

    def __init__(self, api: FakeApi, ahead: timedelta = timedelta()) -> None:
        self.api = api
        self.now_s = 0.0
        self.slept: list[float] = []
        self.problems: list[str | None] = []
        self.listener = Nowhere()
        settings = settings_of(parsed())
        listener: Any = self.listener
        self.metrics = Metrics()
        self.controller = CertificateController(
            settings,
            api,
            listener,
            self.metrics,
            self.problems.append,
            utcnow=lambda: NOW + ahead + timedelta(seconds=self.now_s),
            monotonic=lambda: self.now_s,
            sleep=self.sleep,
        )

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.slept.append(seconds)
        # Lets watches hear of what was done before.
        await turns(10)
        self.after_a_look()
        await asyncio.sleep(0)

    def after_a_look(self) -> None: ...

    def kept(self) -> float:
        (gauge,) = self.metrics.certificates_kept.collect()
        return gauge.samples[0].value

    async def run_until(self, seconds: float) -> None:
        async with background(self.controller.run()), asyncio.timeout(20):
            while self.now_s < seconds:  # noqa: ASYNC110 - the time is the test's own
                await asyncio.sleep(0)


async def test_whoever_overwrites_the_bundle_for_ever_is_answered_a_few_times_at_once_and_then_slowly() -> None:
    class Fought(Watched):
        def after_a_look(self) -> None:
            self.api.objects[CONFIGURATION]["webhooks"][0]["clientConfig"]["caBundle"] = GARBAGE
            self.api.changed(CONFIGURATION)

    fought = Fought(FakeApi())
    await fought.run_until(60)
    patches = sum(call.startswith("PATCH") for call in fought.api.calls)
    # The first publication, ten at once, then one every five seconds.
    assert 11 + 60 / 5 - 2 <= patches <= 11 + 60 / 5 + 2
    assert len(fought.listener.served) == 1
    assert fought.problems[-1] is None


@pytest.mark.parametrize("apart", [timedelta(hours=2), timedelta(days=400), timedelta(days=4015)], ids=str)
async def test_replicas_whose_clocks_differ_do_not_fight_for_all_that_the_api_server_can_take(apart: timedelta) -> None:
    api = FakeApi()
    first, second = Watched(api), Watched(api, apart)
    async with background(first.controller.run()), background(second.controller.run()):
        await turns(10_000)  # those who agree after all would rest until the next look
    writes = sum(call.startswith(("PUT", "PATCH")) for call in api.calls)
    # Each ten at once, one more a minute, else a look every five seconds, which is a write of each object at most.
    assert writes <= sum(2 * (12 + each.now_s / 5 + each.now_s / 60) for each in (first, second)) * 1.1
    held = decode(api.objects[SECRET]["data"])
    assert len(held.former) <= MOST_FORMER


async def test_where_nothing_can_be_agreed_on_it_waits_longer_each_time(caplog: pytest.LogCaptureFixture) -> None:
    api = FakeApi()
    del api.objects[CONFIGURATION]
    watched = Watched(api)
    with caplog.at_level(logging.WARNING):
        await watched.run_until(0.4)
    assert "no trusted certificate yet, again in 0.5 s" in caplog.text
    assert "mutatingwebhookconfigurations/ipvlan-bandwidth not found" in watched.problems[-1]
    assert watched.listener.served == set()


@pytest.mark.parametrize("damaged", [None, {"webhooks": []}], ids=["no configuration", "no webhook in it"])
async def test_a_metric_says_that_api_servers_do_not_ask_the_webhook_until_they_do_again(damaged: Json | None) -> None:
    """Though the replica is ready all the time, with a certificate that is good for a year."""
    watched = Watched(FakeApi())
    whole = watched.api.objects[CONFIGURATION]
    assert math.isnan(watched.kept())
    seen: list[float] = []

    def person() -> None:
        seen.append(watched.kept())
        if len(seen) == 2:
            del watched.api.objects[CONFIGURATION]
            if damaged is not None:
                watched.api.objects[CONFIGURATION] = whole | damaged
        elif len(seen) == 6:
            watched.api.objects[CONFIGURATION] = whole
        watched.api.changed(CONFIGURATION)

    watched.after_a_look = person
    await watched.run_until(20)
    assert (seen[1], seen[5], seen[-1]) == (1, 0, 1)


async def test_a_certificate_that_tls_cannot_serve_with_is_told_and_looked_at_again() -> None:
    watched = Watched(FakeApi())
    watched.listener.refusals.append(UnusableCertificateError("no certificate with its key: EE_KEY_TOO_SMALL"))
    await watched.run_until(0.52)
    assert watched.problems[0] == "no certificate with its key: EE_KEY_TOO_SMALL"
    assert watched.problems[-1] is None
    assert len(watched.listener.served) == 1


@pytest.mark.parametrize(("status", "told"), [(422, 1), (403, 1), (0, 0), (503, 0)])
async def test_what_the_api_server_refuses_for_long_is_told_once_an_hour_and_it_goes_on_serving(
    monkeypatch: pytest.MonkeyPatch, status: int, told: int
) -> None:
    monkeypatch.setattr(certificate_controller, "_LONGEST_RETRY_S", certificate_controller._FIRST_RETRY_S)
    api = FakeApi()
    await Watched(api).run_until(0.05)

    async def immutable(*_: object) -> Json:
        raise ApiError(status, "Invalid", "field is immutable when `immutable` is set")

    monkeypatch.setattr(api, "replace", immutable)
    due = Watched(api, timedelta(days=300))
    posted = []
    due.after_a_look = lambda: posted.append(api.posted().count(("Warning", "CertificatesStuck")))
    await due.run_until(60)
    assert (posted[3], posted[6], posted[-1]) == (0, told, told)
    assert "immutable" in due.problems[-1]


async def test_a_defect_is_logged_and_the_replica_goes_on_serving_and_looking(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(certificate_controller, "_LONGEST_RETRY_S", certificate_controller._FIRST_RETRY_S)
    watched = Watched(FakeApi())
    establish = CredentialStore.establish
    failures: list[Exception] = []

    async def failing(store: CredentialStore, held: Credentials | None) -> Credentials:
        if held is not None and len(failures) < 3:
            failures.append(OSError("out of files") if failures else TypeError("a defect"))
            raise failures[-1]
        return await establish(store, held)

    monkeypatch.setattr(CredentialStore, "establish", failing)
    watched.api.changed(SECRET)
    await watched.run_until(1.6)
    assert len(failures) == 3
    assert "TypeError: a defect" in caplog.text
    assert "a defect in the webhook, please report it" in watched.problems[1]


async def test_a_port_that_cannot_be_had_ends_it() -> None:
    watched = Watched(FakeApi())
    watched.listener.refusals.append(OSError("address already in use"))
    with pytest.raises(ExceptionGroup) as caught:
        await watched.controller.run()
    assert isinstance(caught.value.exceptions[0], OSError)
