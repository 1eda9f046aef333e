"""The maps' entries: exact at every rate, and read back as written."""

import sys
from fractions import Fraction
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.kernel import buckets
from reconciler.model import GSO_DEFAULT_BYTES, LimitEntry, bucket_of, class_id, gso_max_bytes
from webhook.common.contract import Direction

rates = st.one_of(st.integers(1000, 10**15), st.sampled_from([10**power for power in range(3, 16)]))


@given(rates, st.integers(1, (1 << 20) - 1))
def test_the_time_of_a_packet_is_exact_to_a_billionth_and_fits_64_bits(rate: int, size: int) -> None:
    figures = buckets.timing(rate)
    assert size * figures.multiplier + (1 << figures.shift) < 1 << 64
    assert 0 < figures.shift < 64
    exact = Fraction(size * 8 * 10**9, rate)
    assert abs(Fraction(size * figures.multiplier, 1 << figures.shift) - exact) <= exact / 10**9


@given(rates)
def test_the_queue_is_bounded_and_never_below_a_packet(rate: int) -> None:
    figures = buckets.timing(rate)
    packet_ns = buckets.FULL_PACKET_BYTES * 8 * 10**9 // rate
    assert packet_ns < figures.target_ns < figures.interval_ns
    assert figures.cap_ns > figures.target_ns


@given(rates)
def test_what_a_flow_has_at_the_full_rate_fits_16_bits(rate: int) -> None:
    figures = buckets.timing(rate)
    at_full_rate = rate / 8 * ((1 << 16) * 1.024e-6) / log(2)
    gso_packet = 1 << 16
    assert (max(gso_packet, at_full_rate)) < 1 << (16 + figures.unit_shift)
    assert 0 < figures.sparse_had < 1 << 16


@given(rates)
def test_the_shapers_products_fit_64_bits(rate: int) -> None:
    figures = buckets.timing(rate)
    longest_wait_ns = max(figures.cap_ns, 10**9) + 2 * figures.interval_ns
    most_had, longest_half_life, most_times = (1 << 16) - 1, 22, 4
    assert (longest_wait_ns >> 10) * most_had < 1 << 64
    assert most_times * 4 * 1514 * 1477 << longest_half_life < 1 << 64
    assert most_times * figures.target_ns < 1 << 64
    assert 10 + figures.unit_shift < 64
    most_held_bytes = 3 << 19
    assert longest_wait_ns * most_held_bytes < 1 << 64
    longest_packet_ns = (1 << 16) * 8 * 10**9 // rate
    assert longest_packet_ns * (longest_wait_ns >> (figures.borrowed_shift - 4)) < 1 << 64


@given(rates)
def test_a_few_small_packets_may_always_go_ahead_and_at_ordinary_rates_no_more_than_17_ms(rate: int) -> None:
    ahead_ns = 1 << buckets.timing(rate).borrowed_shift
    assert ahead_ns * rate / 8e9 >= 512
    assert ahead_ns == 1 << 24 or rate < 10**6


@given(rates, st.integers(1, 1 << 63), st.integers(0, 1 << 63))
def test_an_entry_is_read_as_it_was_written(rate: int, generation: int, inode: int) -> None:
    entry = LimitEntry(rate, generation, "5f1c6f0a-1111-2222-3333-444455556666", inode)
    encoded = buckets.encode_limit(entry)
    assert len(encoded) == buckets.LIMIT_BYTES
    assert buckets.decode_limit(encoded) == entry


def test_an_empty_entry_is_no_limit() -> None:
    assert buckets.decode_limit(buckets.EMPTY_LIMIT) is None


def test_counters_are_the_head_of_the_state() -> None:
    value = b"".join(number.to_bytes(8, "little") for number in (1, 2, 3, 4, 5)) + bytes(100)
    assert buckets.decode_counters(value) == buckets.Counters(generation=1, bytes=2, packets=3, drops=4, marks=5)


def test_class_ids_of_all_slots_differ() -> None:
    ids = [class_id(slot, direction) for slot in range(1, 100) for direction in Direction]
    assert sorted(ids) == list(range(2, 200))
    assert [bucket_of(each) for each in ids] == [(slot, each) for slot in range(1, 100) for each in Direction]


@given(rates)
def test_a_packet_takes_two_milliseconds_at_most_or_is_two_full_packets(rate: int) -> None:
    size = gso_max_bytes(rate)
    assert 2 * 1514 <= size <= GSO_DEFAULT_BYTES
    assert size == 2 * 1514 or size * 8 / rate <= 0.002


@pytest.mark.parametrize("rate", [0, 999, 10**15 + 1, (1 << 64) - 1])
def test_what_somebody_wrote_into_the_map_that_is_no_rate_tells_of_no_wait(rate: int) -> None:
    """A rate of 0 kept a restarted reconciler from taking over what it found, for ever."""
    value = (2 * 10**9).to_bytes(8, sys.byteorder) * (buckets.STATE_BYTES // 8)
    assert buckets.queue_ns(value, rate, 10**9) == 0
    assert buckets.queue_ns(value, 2 * 10**9, 10**9) == 10**9
