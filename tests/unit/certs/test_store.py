"""Replicas and one Secret: they agree whatever the order of their steps, and clients trust what is served."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs import store
from certs.changes import Change, Kind
from certs.credentials import Credentials, Lifetimes
from certs.secret import decode, encode
from certs.store import PATIENCE_S, CredentialStore, Published, StoreBusyError, StoredSecret

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


class FakeCluster:
    """One Secret and one CA bundle, each with a version; `pause` runs before each step, to let others in.

    The real one is in the cluster suite: two replicas of the Deployment start at once there.
    """

    def __init__(self, order: list[int] | None = None) -> None:
        self.secret: StoredSecret | None = None
        self.bundle = b""
        self.writes = 0
        self.patches = 0
        self.order = list(order or [])
        self.changes: list[Change] = []
        self.slept: list[float] = []

    async def pause(self) -> None:
        for _ in range(self.order.pop() if self.order else 0):
            await asyncio.sleep(0)

    async def read(self) -> StoredSecret | None:
        await self.pause()
        return self.secret

    async def create(self, data: Mapping[str, str]) -> bool:
        await self.pause()
        if self.secret is not None:
            return False
        return self._write(data)

    async def replace(self, stored: StoredSecret, data: Mapping[str, str]) -> bool:
        await self.pause()
        if self.secret is not stored:
            return False
        return self._write(data)

    def _write(self, data: Mapping[str, str]) -> bool:
        self.writes += 1
        self.secret = StoredSecret(dict(data), {})
        return True

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    def kinds(self) -> list[Kind]:
        return [change.kind for change in self.changes]


class FakeBundle:
    """The bundle of a FakeCluster as a store."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster

    async def read(self) -> Published:
        await self.cluster.pause()
        return Published({"pods": self.cluster.bundle}, str(self.cluster.patches))

    async def replace(self, published: Published, bundle: bytes) -> bool:
        await self.cluster.pause()
        if published.version != str(self.cluster.patches):
            return False
        self.cluster.patches += 1
        self.cluster.bundle = bundle
        return True


def replica(
    cluster: FakeCluster, utcnow: Callable[[], datetime] = lambda: NOW, bundle: type[FakeBundle] = FakeBundle
) -> CredentialStore:
    lifetimes = Lifetimes(1000 * DAY, 100 * DAY)
    return CredentialStore(
        cluster, bundle(cluster), ("webhook",), utcnow, lifetimes, cluster.changes.append, cluster.sleep
    )


async def test_the_first_replica_makes_credentials_and_has_them_trusted() -> None:
    cluster = FakeCluster()
    credentials = await replica(cluster).establish()
    assert cluster.secret is not None
    assert cluster.secret.data == encode(credentials)
    assert cluster.bundle == credentials.trusted_pem()


async def test_a_second_replica_takes_them_and_writes_nothing() -> None:
    cluster = FakeCluster()
    first = await replica(cluster).establish()
    second = await replica(cluster).establish()
    assert encode(second) == encode(first)
    assert (cluster.writes, cluster.patches) == (1, 1)


@settings(max_examples=100)
@given(order=st.lists(st.integers(0, 5), max_size=30), count=st.integers(2, 3), expired=st.booleans())
def test_replicas_that_start_at_once_agree(order: list[int], count: int, expired: bool) -> None:
    async def start() -> None:
        cluster = FakeCluster(order)
        if expired:
            await replica(cluster, lambda: NOW - 2000 * DAY).establish()
        held = await asyncio.gather(*(replica(cluster).establish() for _ in range(count)))
        assert cluster.secret is not None
        assert {str(encode(credentials)) for credentials in held} == {str(dict(cluster.secret.data))}
        assert cluster.bundle == held[0].trusted_pem()
        assert cluster.writes == 1 + expired

    asyncio.run(start())


async def test_expired_credentials_are_replaced_at_the_start() -> None:
    cluster = FakeCluster()
    old = await replica(cluster).establish()
    new = await replica(cluster, lambda: NOW + 2000 * DAY).establish()
    assert new.serving.certificate != old.serving.certificate
    assert cluster.bundle == new.trusted_pem()


async def test_a_secret_of_garbage_is_made_anew_by_replicas_that_hold_nothing(caplog: pytest.LogCaptureFixture) -> None:
    cluster = FakeCluster()
    cluster.secret = StoredSecret({"tls.crt": "garbage"}, {})
    with caplog.at_level(logging.INFO):
        credentials = await replica(cluster).establish()
    assert encode(decode(cluster.secret.data)) == encode(credentials)
    assert "ca.crt is missing" in caplog.text
    assert cluster.kinds() == [Kind.MADE, Kind.PUBLISHED]
    assert cluster.slept == [], "nobody trusts anything yet, so nobody serves anything"


async def test_a_secret_that_has_us_fail_is_damage_like_any_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def defective(_: Mapping[str, str]) -> Credentials:
        raise ZeroDivisionError

    cluster = FakeCluster()
    held = await replica(cluster).establish()
    monkeypatch.setattr(store, "decode", defective)
    assert encode(await replica(cluster).establish(held)) == encode(held)
    assert cluster.changes[-1].text.endswith("cannot be used: ZeroDivisionError; restored from memory")
    assert "defect while reading the webhook's Secret" in caplog.text


async def test_a_secret_that_is_lost_or_damaged_is_restored_by_whoever_serves_with_it_and_nothing_else_changes() -> (
    None
):
    cluster = FakeCluster()
    held = await replica(cluster).establish()
    before = cluster.secret
    assert before is not None
    for damaged in (None, StoredSecret({}, {}), StoredSecret({**before.data, "tls.key": before.data["ca.key"]}, {})):
        cluster.changes.clear()
        cluster.secret = damaged
        assert await replica(cluster).establish(held) == held
        assert cluster.secret is not None
        assert cluster.secret.data == before.data
        assert cluster.kinds() == [Kind.RESTORED]
    assert cluster.patches == 1


async def test_a_replica_that_starts_just_then_waits_for_it() -> None:
    cluster = FakeCluster()
    held = await replica(cluster).establish()
    cluster.secret = None

    async def restored_meanwhile(seconds: float) -> None:
        assert seconds == PATIENCE_S
        await replica(cluster).establish(held)

    starting = replace(replica(cluster), sleep=restored_meanwhile)
    assert encode(await starting.establish()) == encode(held)


async def test_but_not_for_ever_and_what_others_may_serve_stays_trusted() -> None:
    cluster = FakeCluster()
    held = await replica(cluster).establish()
    cluster.secret = None
    made = await replica(cluster).establish()
    assert cluster.slept == [PATIENCE_S]
    assert made.authority != held.authority
    assert set(held.trusted()) < set(made.trusted())
    # The other replica was cut off meanwhile: it follows.
    assert encode(await replica(cluster).establish(held)) == encode(made)


async def test_made_anew_what_somebody_wrote_into_the_bundle_is_not_trusted() -> None:
    cluster = FakeCluster()
    cluster.bundle = b"-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n"
    made = await replica(cluster).establish()
    assert made.former == ()
    assert cluster.bundle == made.trusted_pem()


async def test_replicas_with_different_memories_of_a_lost_secret_agree() -> None:
    one, other = FakeCluster(), FakeCluster()
    first, second = await replica(one).establish(), await replica(other).establish()
    one.secret = None
    first = await replica(one).establish(first)
    second = await replica(one).establish(second)
    first = await replica(one).establish(first)
    assert encode(first) == encode(second)
    assert one.kinds().count(Kind.RESTORED) == 2


async def test_a_bundle_that_someone_overwrote_is_put_back() -> None:
    cluster = FakeCluster()
    credentials = await replica(cluster).establish()
    for damage, said in ((b"", "the caBundle was missing"), (b"garbage", "the caBundle was not the webhook's")):
        cluster.bundle = damage
        await replica(cluster).establish(credentials)
        assert cluster.bundle == credentials.trusted_pem()
        assert cluster.changes[-1] == Change(Kind.BUNDLE_REPAIRED, f"{said}, and was put back")


async def test_a_replica_that_is_overtaken_while_it_publishes_does_not_undo_what_the_faster_one_did() -> None:
    class Overtaken(FakeBundle):
        async def replace(self, published: Published, bundle: bytes) -> bool:
            if not self.cluster.patches:  # another replica replaces everything just before
                self.cluster.secret = None
                await replica(self.cluster).establish()
            return await super().replace(published, bundle)

    cluster = FakeCluster()
    credentials = await replica(cluster, bundle=Overtaken).establish()
    assert cluster.secret is not None
    assert encode(credentials) == cluster.secret.data
    assert cluster.bundle == credentials.trusted_pem()
    assert cluster.patches == 1


async def test_a_rotation_takes_its_steps_one_look_after_another() -> None:
    cluster = FakeCluster()
    now = NOW
    first = held = await replica(cluster).establish()
    seen = []
    for days in (690, 0.5, 1.5, 101):
        now += days * DAY
        cluster.changes.clear()
        held = await replica(cluster, lambda: now).establish(held)  # noqa: B023 - called before the next round
        assert cluster.bundle == held.trusted_pem()
        seen.append(cluster.kinds())
    assert seen == [
        [Kind.ANNOUNCED, Kind.RENEWED, Kind.PUBLISHED, Kind.PUBLISHED],
        [],
        [Kind.ROTATED, Kind.RENEWED],
        [Kind.RENEWED, Kind.RETIRED, Kind.PUBLISHED],
    ]
    assert held.authority != first.authority


async def test_a_secret_that_never_comes_to_rest_is_an_error_and_no_endless_loop() -> None:
    class Restless(FakeCluster):
        async def create(self, data: Mapping[str, str]) -> bool:
            await super().create(data)
            self.secret = None
            return False

    with pytest.raises(StoreBusyError, match="kept changing"):
        await replica(Restless()).establish()


async def test_bundles_that_are_replaced_for_ever_are_an_error_too() -> None:
    class Replaced(FakeBundle):
        async def replace(self, published: Published, bundle: bytes) -> bool:
            await super().replace(published, bundle)
            self.cluster.bundle = b"somebody else's"
            return True

    with pytest.raises(StoreBusyError, match="kept changing"):
        await replica(FakeCluster(), bundle=Replaced).establish()


async def test_a_configuration_without_webhooks_has_nothing_to_publish() -> None:
    class NoWebhooks(FakeBundle):
        async def read(self) -> Published:
            return Published({}, "1")

    cluster = FakeCluster()
    await replica(cluster, bundle=NoWebhooks).establish()
    assert cluster.patches == 0
