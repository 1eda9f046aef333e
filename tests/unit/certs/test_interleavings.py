"""At every moment of any interleaving, a client that lags accepts what every replica serves."""

import functools
import types
from collections.abc import Coroutine, Generator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from random import Random

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.changes import Change, Kind
from certs.credentials import Credentials, Lifetimes
from certs.store import CredentialStore, Published, StoreBusyError, StoredSecret
from tests.unit.certs.clients import NAMES, NOW, accepts

LIFETIMES = Lifetimes(timedelta(seconds=1200), timedelta(seconds=600), timedelta(seconds=180))
# How long a replica may stand still between two calls of the API server, and how far one call is from the next.
STALL_S = 6.0
STEP_S = 3.0
TURNS = 1500


@types.coroutine
def turn() -> Generator[None]:
    """Wait until the test lets this replica go on."""
    yield


@functools.cache
def chains(bundle: bytes, serving: x509.Certificate) -> bool:
    return accepts(bundle, serving, NAMES[0], serving.not_valid_after_utc - timedelta(seconds=1))


class World:
    """The Secret, the bundle and all that clients may still know of it; a clock that the test moves."""

    def __init__(self) -> None:
        self.now = NOW
        self.secret: StoredSecret | None = None
        self.versions = 0
        self.bundle = b""
        self.bundle_version = 0
        self.superseded: list[tuple[datetime, bytes]] = []
        self.changes: list[Change] = []

    async def read(self) -> StoredSecret | None:
        await turn()
        return self.secret

    async def create(self, data: Mapping[str, str]) -> bool:
        await turn()
        return self.secret is None and self._write(data)

    async def replace(self, stored: StoredSecret, data: Mapping[str, str]) -> bool:
        await turn()
        return self.secret is stored and self._write(data)

    def _write(self, data: Mapping[str, str]) -> bool:
        self.versions += 1
        self.secret = StoredSecret(dict(data), {})
        return True

    def publish(self, bundle: bytes) -> None:
        self.superseded.append((self.now, self.bundle))
        self.bundle = bundle
        self.bundle_version += 1

    def known_to_clients(self) -> list[bytes]:
        """Every bundle that a client may know, who hears of it after the overlap at the latest."""
        since = self.now - LIFETIMES.overlap
        return [bundle for until, bundle in self.superseded if until > since and bundle] + [self.bundle]


class Bundle:
    def __init__(self, world: World) -> None:
        self.world = world

    async def read(self) -> Published:
        await turn()
        return Published({"pods": self.world.bundle}, str(self.world.bundle_version))

    async def replace(self, published: Published, bundle: bytes) -> bool:
        await turn()
        if published.version != str(self.world.bundle_version):
            return False
        self.world.publish(bundle)
        return True


class Replica:
    """One that looks for ever, a call at a time."""

    def __init__(self, world: World, ahead: timedelta = timedelta(), lifetimes: Lifetimes = LIFETIMES) -> None:
        self.world = world
        self.ahead = ahead
        self.lifetimes = lifetimes
        self.ran = world.now
        self.held: Credentials | None = None
        self._steps: Coroutine[None, None, None] = self._live()

    async def _live(self) -> None:
        async def sleep(_: float) -> None:
            await turn()

        store = CredentialStore(
            self.world,
            Bundle(self.world),
            NAMES,
            lambda: self.world.now + self.ahead,
            self.lifetimes,
            self.world.changes.append,
            sleep,
        )
        while True:
            with suppress(StoreBusyError):
                self.held = await store.establish(self.held)
            await turn()

    def step(self) -> None:
        self.ran = self.world.now
        self._steps.send(None)

    def stop(self) -> None:
        self._steps.close()


class Interleaving:
    """Replicas and the clients between them, driven by a source of chance."""

    def __init__(self, chance: Random, world: World, replicas: list[Replica], turns: int) -> None:
        self.chance = chance
        self.world = world
        self.replicas = replicas
        self.turns = turns

    def go(self) -> None:
        try:
            for _ in range(self.turns):
                self.world.now += timedelta(seconds=self.chance.random() * STEP_S)
                self.next().step()
                self.disturb()
                self.check()
        finally:
            for each in self.replicas:
                each.stop()

    def next(self) -> Replica:
        stalled = [each for each in self.replicas if (self.world.now - each.ran).total_seconds() > STALL_S - STEP_S]
        return (stalled or [self.chance.choice(self.replicas)])[0]

    def disturb(self) -> None:
        """What happens now and then."""
        raise NotImplementedError

    def check(self) -> None:
        """What holds after each turn."""
        raise NotImplementedError


class Run(Interleaving):
    """Two replicas, one of them replaced now and then, or the Secret damaged."""

    def __init__(self, chance: Random, *, damage: bool) -> None:
        world = World()
        super().__init__(chance, world, [Replica(world), Replica(world)], TURNS)
        self.damage = damage

    def disturb(self) -> None:
        if self.chance.random() > 0.01 or not all(each.held for each in self.replicas):
            return
        if self.damage:
            self.world.secret = self.chance.choice([None, StoredSecret({}, {})])
            return
        # One of them is replaced, as in a rolling update.
        number = self.chance.randrange(2)
        self.replicas[number].stop()
        self.replicas[number] = Replica(self.world)

    def check(self) -> None:
        for each in self.replicas:
            if each.held is None:
                continue
            served = each.held.serving.certificate
            assert self.world.now < served.not_valid_after_utc, "a replica serves what has expired"
            for bundle in self.world.known_to_clients():
                assert chains(bundle, served), "a client refuses what a replica serves"


@pytest.mark.parametrize("damage", [False, True], ids=["replicas are replaced", "the Secret is lost time and again"])
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))  # one number: thousands of draws are no sensible example
def test_a_client_that_lags_by_the_overlap_accepts_whatever_any_replica_serves(damage: bool, seed: int) -> None:
    run = Run(Random(seed), damage=damage)  # noqa: S311 - no secret depends on it
    run.go()
    kinds = {change.kind for change in run.world.changes}
    # Else nothing was seen: each run must be long enough for a whole rotation.
    assert {Kind.ANNOUNCED, Kind.ROTATED, Kind.RENEWED, Kind.RETIRED} <= kinds
    assert (Kind.RESTORED in kinds) is damage
