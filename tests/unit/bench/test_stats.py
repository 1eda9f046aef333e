"""What measurements come to."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import stats

times = st.lists(st.floats(0, 1000), min_size=1, max_size=200)


@given(times, st.floats(0.01, 1))
def test_a_percentile_is_the_least_value_that_enough_are_not_above(values: list[float], share: float) -> None:
    found = stats.percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values)


@pytest.mark.parametrize(
    ("values", "index"), [([3, 3, 3], 1), ([5, 0, 0, 0], 0.25), ([], 0), ([0, 0], 0), ([1, 2], 0.9)]
)
def test_jains_index(values: list[float], index: float) -> None:
    assert stats.jain(values) == pytest.approx(index)


def test_a_probe_without_an_answer_counts_as_a_second() -> None:
    summed = stats.waits([1.0, 2.0, None])
    assert summed == stats.Waits(p50=2.0, p99=1000.0, largest=1000.0, count=3, lost=1)
    assert stats.waits([]) is None


def test_what_load_adds_is_the_difference_of_like_figures() -> None:
    figures = stats.added(stats.Waits(12, 15, 20, 100, 1), stats.Waits(10, 11, 19, 50, 0))
    assert (figures["p50"], figures["p99"], figures["largest"], figures["lost"]) == (2, 4, 1, 1)


def test_the_first_second_leaves_the_first_packet_out() -> None:
    bins = [1_000_000] + [0] * 98 + [250_000, 999]
    assert stats.first_second(bins, 1_000_000) == 2
    assert stats.first_second([], 0) == 0


def test_the_largest_window_is_the_fullest_one() -> None:
    packets = [(at * 10_000_000, 1250) for at in range(20)] + [(200_000_000, 12_500)]
    assert stats.largest_window(packets, 100_000_000, 0) == pytest.approx((9 * 1250 + 12_500) * 8 / 0.1 / 1e6)


def test_packets_that_a_stall_held_back_count_from_where_it_began() -> None:
    packets = [(0, 1000), (99_000_000, 1000), (104_000_000, 5000)]
    assert stats.largest_window(packets, 100_000_000, 5_000_000) < stats.largest_window(packets, 110_000_000, 0)


def test_a_rate_that_holds_at_once_needs_no_time() -> None:
    assert stats.settled([1250] * 200, 1_000_000, lowered=False) == 0


def test_a_rate_holds_after_the_last_window_that_is_off() -> None:
    bins = [12_500] * 50 + [1250] * 200
    # 50 bins of a window that still has one bin of ten times the rate are 18 % above it; with none they are not.
    assert stats.settled(bins, 1_000_000, lowered=True) == pytest.approx(0.5)


def test_a_lowered_rate_holds_while_less_comes() -> None:
    assert stats.settled([500] * 200, 1_000_000, lowered=True) == 0


def test_a_rate_that_is_never_reached_does_not_hold() -> None:
    assert math.isinf(stats.settled([500] * 200, 1_000_000, lowered=False))
    assert math.isinf(stats.settled([1250] * 150 + [0] * 50, 1_000_000, lowered=False))
    assert math.isinf(stats.settled([2500] * 200, 1_000_000, lowered=True))


def test_who_lets_nothing_pass_does_not_exceed_a_rate_but_does_not_carry_it_either() -> None:
    assert stats.settled([0] * 200, 1_000_000, lowered=True) == 0
    assert math.isinf(stats.carried_again([0] * 200, 1_000_000))
    assert stats.carried_again([0] * 100 + [1250] * 100, 1_000_000) == pytest.approx(0.75)
    assert stats.carried_again([625] * 200, 1_000_000) == 0


def test_silence_is_counted_to_both_ends() -> None:
    assert stats.longest_silence([2 * 10**9, 1 * 10**9, 9 * 10**9], 0, 5 * 10**9) == 3
    assert stats.longest_silence([], 0, 10**9) == 1


def test_packets_are_counted_in_the_bins_of_a_period():
    ms = 1_000_000
    packets = [(9 * ms, 1), (10 * ms, 2), (19 * ms, 4), (20 * ms, 8), (40 * ms, 16)]
    assert stats.binned(packets, (10 * ms, 39 * ms)) == [6, 8]


@pytest.mark.parametrize("release", ["6.18", "6.18.44", "6.18.44-some-cloud-7", "6.18-rc1+deb14-amd64"])
def test_of_a_machines_kernel_the_series_is_told_and_not_whose_build_it_is(release):
    assert stats.kernel_series(release) == "6.18"
