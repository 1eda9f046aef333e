"""Replicas and one Secret: they agree whatever the order of their steps, and clients trust what is served."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.authority import Lifetimes
from certs.secret import decode, encode
from certs.store import CredentialStore, StoreBusyError, StoredSecret

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


class FakeCluster:
    """One Secret with a version and one CA bundle; `pause` runs before each step, to let others in.

    The real one is in the cluster suite: two replicas of the Deployment start at once there.
    """

    def __init__(self, order: list[int] | None = None) -> None:
        self.secret: StoredSecret | None = None
        self.bundle = b""
        self.writes = 0
        self.patches = 0
        self.order = list(order or [])

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

    async def replace(self, data: Mapping[str, str], version: str) -> bool:
        await self.pause()
        if self.secret is None or self.secret.version != version:
            return False
        return self._write(data)

    def _write(self, data: Mapping[str, str]) -> bool:
        self.writes += 1
        self.secret = StoredSecret(dict(data), str(self.writes))
        return True

    async def trust(self, bundle: bytes) -> None:
        await self.pause()
        if bundle != self.bundle:
            self.patches += 1
            self.bundle = bundle


def replica(cluster: FakeCluster, clock: Callable[[], datetime] = lambda: NOW) -> CredentialStore:
    return CredentialStore(cluster, cluster.trust, ("webhook",), clock, Lifetimes(1000 * DAY, 100 * DAY))


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


@settings(max_examples=100, deadline=None)
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


async def test_a_secret_of_garbage_is_made_anew_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    cluster = FakeCluster()
    cluster.secret = StoredSecret({"tls.crt": "garbage"}, "7")
    with caplog.at_level(logging.WARNING):
        credentials = await replica(cluster).establish()
    assert encode(decode(cluster.secret.data)) == encode(credentials)
    assert "ca.crt is missing" in caplog.text


async def test_a_bundle_that_someone_overwrote_is_put_back() -> None:
    cluster = FakeCluster()
    credentials = await replica(cluster).establish()
    cluster.bundle = b""
    await replica(cluster).establish()
    assert cluster.bundle == credentials.trusted_pem()


async def test_a_replica_that_patched_an_older_bundle_over_a_newer_one_patches_again() -> None:
    class Overtaken(FakeCluster):
        async def trust(self, bundle: bytes) -> None:
            await super().trust(bundle)
            if self.patches == 1:  # another replica replaces everything just after
                self.secret = None
                await replica(self).establish()
                self.bundle = bundle

    cluster = Overtaken()
    credentials = await replica(cluster).establish()
    assert cluster.secret is not None
    assert encode(credentials) == cluster.secret.data
    assert cluster.bundle == credentials.trusted_pem()


async def test_a_secret_that_never_comes_to_rest_is_an_error_and_no_endless_loop() -> None:
    class Restless(FakeCluster):
        async def create(self, data: Mapping[str, str]) -> bool:
            await super().create(data)
            self.secret = None
            return False

    with pytest.raises(StoreBusyError, match="kept changing"):
        await replica(Restless()).establish()


async def test_authorities_that_are_replaced_for_ever_are_an_error_too() -> None:
    class Replaced(FakeCluster):
        async def trust(self, bundle: bytes) -> None:
            await super().trust(bundle)
            self.secret = None

    with pytest.raises(StoreBusyError, match="kept replacing"):
        await replica(Replaced()).establish()
