"""Replicas whose clocks differ: what they write is bounded, and one whose clock is behind has no client refuse."""

from datetime import timedelta
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from certs.authority import BACKDATED
from certs.credentials import MOST_FORMER, Lifetimes
from certs.rotation import HASTE
from tests.unit.certs.clients import NAMES, accepts
from tests.unit.certs.test_interleavings import Interleaving, Replica, World

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
LIFETIMES = Lifetimes(30 * HOUR, 15 * HOUR, 3 * HOUR)
# A CA that outlives all that clocks differ by.
LONG = Lifetimes(3000 * HOUR, 15 * HOUR, 3 * HOUR)
TURNS = 1000


class Run(Interleaving):
    """Replicas with clocks of their own, for a day or two, of which most pass while nothing happens."""

    def __init__(
        self, chance: Random, ahead: list[timedelta], *, strict: bool, lifetimes: Lifetimes = LIFETIMES
    ) -> None:
        world = World()
        super().__init__(chance, world, [Replica(world, each, lifetimes) for each in ahead], TURNS)
        self.strict = strict
        self.refused = 0

    def disturb(self) -> None:
        if self.chance.random() < 0.05:
            self.world.now += self.chance.random() * 2 * HOUR
            self.all_look()

    def all_look(self) -> None:
        """After they stood still, before the next thing happens."""
        for _ in range(30):
            for each in self.replicas:
                each.step()

    def check(self) -> None:
        assert all(each.held is None or len(each.held.former) <= MOST_FORMER for each in self.replicas)
        bundles = [bundle for until, bundle in self.world.superseded if until > self.world.now - HASTE / 2 and bundle]
        for served in {each.held.serving.certificate for each in self.replicas if each.held}:
            good = all(accepts(bundle, served, NAMES[0], self.world.now) for bundle in (*bundles, self.world.bundle))
            assert good or not self.strict, "a client refuses what a replica serves"


seeds = st.integers(0, 2**32)


@settings(max_examples=10)
@given(seed=seeds, behind=st.lists(st.integers(-5 * 60, 50), min_size=2, max_size=2))
@example(seed=1, behind=[0, -120])
@example(seed=2, behind=[-120, 0])
def test_no_client_refuses_where_clocks_are_behind_and_little_is_written(seed: int, behind: list[int]) -> None:
    run = Run(Random(seed), [each * MINUTE for each in behind], strict=True)  # noqa: S311 - no secret depends on it
    run.go()
    # Two days have four certificates and as many steps of rotations; each replica may want those of its own.
    assert run.world.versions <= 60


@settings(max_examples=10)
@given(seed=seeds, behind=st.integers(BACKDATED // HOUR, 100))
@example(seed=4, behind=40)
@example(seed=11980, behind=15)
def test_a_clock_that_is_behind_by_lifetimes_shortens_no_certificate(seed: int, behind: int) -> None:
    run = Run(Random(seed), [timedelta()], strict=True, lifetimes=LONG)  # noqa: S311 - no secret depends on it
    while run.replicas[0].held is None:  # the first credentials are by a clock that is right
        run.replicas[0].step()
    run.replicas.append(Replica(run.world, -behind * HOUR, LONG))
    run.go()


@settings(max_examples=5)
@given(seed=seeds, ahead=st.integers(-60, 60))
@example(seed=3, ahead=8)
@pytest.mark.parametrize("years", [0, 11])
def test_however_far_they_are_apart_what_clients_trust_is_bounded(seed: int, ahead: int, years: int) -> None:
    apart = [timedelta(), ahead * HOUR + years * timedelta(days=365)]
    run = Run(Random(seed), apart, strict=False)  # noqa: S311 - no secret depends on it
    run.go()
    assert run.world.bundle.count(b"BEGIN CERTIFICATE") <= MOST_FORMER + 2


def test_a_clock_that_is_behind_by_less_than_certificates_are_backdated_is_none_that_is_wrong() -> None:
    run = Run(Random(0), [timedelta(), MINUTE - BACKDATED], strict=True)  # noqa: S311 - no secret depends on it
    for _ in range(200):
        run.next().step()
        run.check()
    assert run.world.versions == 1
