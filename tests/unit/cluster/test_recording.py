"""What a recording of departures makes of a machine that stands still for some milliseconds, and of a free start."""

import random

import pytest

from tests.cluster.traffic import Recording

TRAIN_BYTES = 25738  # 17 full packets, as a sender at 100M gives them to its link
APART_MS = TRAIN_BYTES * 8 / 100_000


def departures(late, *, begins=0.0, free=0, slow_ms=0.0):
    """600 ms at 100M. `late`: for how many ms each of some trains is late, and what was due meanwhile leaves with it.

    `free` trains come with the first; `slow_ms`: a train takes that long to leave.
    """
    due = [begins + number * APART_MS for number in range(300)]
    left = [due[0]] * free
    stands_until = 0.0
    for number, at in enumerate(due):
        stands_until = max(stands_until, at + late.get(number, 0.0))
        left.append(max(at, stands_until))
        stands_until = max(stands_until, left[-1] + slow_ms)
    bins = {}
    for at in left:
        bins[int(at)] = bins.get(int(at), 0) + TRAIN_BYTES
    return Recording({"pod": sorted(bins.items())})


@pytest.mark.parametrize(
    ("most_ms", "apart", "slow_ms"),
    [(1, 3, 0), (6, 3, 0), (19, 10, 0), (6, 4, 0.3), (6, 5, 1), (19, 10, 0.3), (19, 20, 1)],
)
def test_what_leaves_late_together_is_no_burst(most_ms, apart, slow_ms):
    chance = random.Random(1)  # noqa: S311 - the same each time
    for _ in range(300):
        late = {number: chance.uniform(0, most_ms) for number in range(100, 200, chance.randint(apart, 20))}
        seen = departures(late, begins=chance.uniform(0, 3), slow_ms=slow_ms)
        assert 100 <= seen.fastest_window("pod") <= 105


def test_what_leaves_before_it_is_due_is_one():
    assert departures({}, free=3).fastest_window("pod") > 105
