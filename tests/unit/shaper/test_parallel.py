"""What two CPUs charge and count at once in one bucket, on a clock that stands still. Times in ns."""

import os

import pytest

from tests.unit.shaper.native import MILLISECOND, SECOND, Native

CPUS = sorted(os.sched_getaffinity(0))[:2]
ROUNDS = 12
EACH = 100_000
LENGTH = 60
TOO_LONG = 1 << 20

pytestmark = pytest.mark.skipif(len(CPUS) < 2, reason="there is one CPU")


def go_on_to_signals(shaper: Native) -> None:
    """By chance, which is a hash of the time: a long queue is signalled early, and a small packet counts as a unit."""
    while True:
        shaper.now += 1
        chance = (shaper.now * 0x9E3779B97F4A7C15 >> 32) & 0xFFFFFFFF
        if chance >> 16 < 1024 and chance & 2047 > 2047 - LENGTH:
            return


def test_of_what_two_cpus_charge_and_count_at_once_nothing_is_lost() -> None:
    """With the timeline ahead of the clock."""
    shaper, marks = Native("10G"), 0
    for _ in range(ROUNDS):
        shaper.now += SECOND
        go_on_to_signals(shaper)
        ahead = duration = 0
        while ahead < MILLISECOND // 10:
            shaper.send(LENGTH)
            ahead, duration = shaper.queue_ns, shaper.queue_ns - ahead
        before = shaper.counters()
        passed, marked = shaper.send_at_once(CPUS, EACH, LENGTH, may_mark=True)
        after = shaper.counters()
        assert after.packets - before.packets == passed
        assert after.bytes - before.bytes == passed * LENGTH
        assert after.drops - before.drops == 2 * EACH - passed
        assert after.marks - before.marks == marked
        assert shaper.queue_ns - ahead == passed * duration
        assert passed > EACH
        marks += marked
    assert marks > EACH


def test_of_what_two_cpus_drop_at_once_all_is_counted() -> None:
    shaper = Native("10G")
    shaper.send(LENGTH)  # the first one of a generation begins the counters
    assert shaper.send_at_once(CPUS, 3 * EACH, TOO_LONG) == (0, 0)
    assert shaper.counters().drops == 2 * 3 * EACH
