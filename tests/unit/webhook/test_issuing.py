"""Our own issuing where others work against it: it mends at once, and never as often as the API server can take."""

import asyncio
import base64
import logging
from typing import Any

import pytest

from tests.unit.webhook.fake_api import CONFIGURATION, FakeApi
from tests.unit.webhook.running_server import parsed
from webhook.issuing import Issuing
from webhook.listener import UnusableCertificateError
from webhook.metrics import Metrics
from webhook.settings import settings_of

GARBAGE = base64.b64encode(b"garbage").decode()


class Nowhere:
    """A listener that only counts what it is to serve with: the real one is in test_listener and test_server."""

    def __init__(self) -> None:
        self.served: set[bytes] = set()
        self.refusals: list[UnusableCertificateError] = []

    async def use(self, chain: bytes, _key: bytes) -> None:
        if self.refusals:
            raise self.refusals.pop()
        self.served.add(chain)


class Watched:
    """Issuing whose sleeps take no time, and a person who does something after each."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        self.now_s = 0.0
        self.slept: list[float] = []
        self.ready: list[str] = []
        self.listener = Nowhere()
        settings = settings_of(parsed())
        listener: Any = self.listener
        self.issuing = Issuing(
            settings, api, listener, Metrics(), self.ready.append, clock=lambda: self.now_s, sleep=self.sleep
        )

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.slept.append(seconds)
        # Lets watches hear of what was done before.
        for _ in range(10):
            await asyncio.sleep(0)
        self.after_a_look()
        await asyncio.sleep(0)

    def after_a_look(self) -> None: ...

    async def run_until(self, seconds: float) -> None:
        task = asyncio.create_task(self.issuing.run())
        async with asyncio.timeout(20):
            while self.now_s < seconds:  # noqa: ASYNC110 - the time is the test's own
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


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
    assert fought.ready[-1] == ""


async def test_where_nothing_can_be_agreed_on_it_waits_longer_each_time(caplog: pytest.LogCaptureFixture) -> None:
    api = FakeApi()
    del api.objects[CONFIGURATION]
    watched = Watched(api)
    with caplog.at_level(logging.WARNING):
        await watched.run_until(0.4)
    assert "no trusted certificate yet, again in 0.5 s" in caplog.text
    assert "mutatingwebhookconfigurations/ipvlan-bandwidth not found" in watched.ready[-1]
    assert watched.listener.served == set()


async def test_a_certificate_that_tls_cannot_serve_with_is_told_and_looked_at_again() -> None:
    watched = Watched(FakeApi())
    watched.listener.refusals.append(UnusableCertificateError("no certificate with its key: EE_KEY_TOO_SMALL"))
    await watched.run_until(0.52)
    assert watched.ready[0] == "no certificate with its key: EE_KEY_TOO_SMALL"
    assert watched.ready[-1] == ""
    assert len(watched.listener.served) == 1
