"""What the shaper does, packet by packet, on a clock that the tests set. Times in ns."""

import heapq
import itertools
import math
import random

import pytest

from tests.unit.shaper.native import ARP, IPV4, MILLISECOND, SECOND, Native
from tests.unit.shaper.traffic import CALL, FLOOD, OTHER, PING, RATES, TCP, every, wait_of
from webhook.common.contract import Direction

LONGEST = (1 << 20) - 1  # what a packet may claim
MICROSECOND = 1000


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("limit", ["1k", "100k", "1M", "100M", "1G"])
def test_packets_that_come_at_once_leave_one_after_the_other_at_the_rate(limit: str, direction: Direction) -> None:
    shaper = Native(limit, direction)
    each = 1514 * 8 * SECOND / shaper.bits_per_second
    waits = [shaper.send().wait_ns for _ in range(8)]
    assert waits == pytest.approx([number * each for number in range(8)], rel=1e-6, abs=8)


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize(
    ("limit", "length"), [("1G", 1514), ("10G", 1514), ("10G", 65_549), ("100G", 65_549), ("1T", 65_549)]
)
def test_a_sender_that_never_lacks_packets_is_carried_at_high_limits_to_a_thousandth(
    limit: str, length: int, direction: Direction
) -> None:
    shaper = Native(limit, direction)
    began = shaper.now
    for _ in range(2000):
        for _ in range(10):
            assert shaper.send(length).wait_ns is not None
            shaper.now += 150  # as long as a CPU takes to send one
        shaper.now += shaper.queue_ns
    exact = 20_000 * length * 8 * SECOND / shaper.bits_per_second
    assert shaper.now - began == pytest.approx(exact, rel=0.001)


def test_a_sender_s_own_stamp_is_kept_for_a_second_and_never_made_earlier_than_the_rate() -> None:
    shaper = Native("10M")
    assert shaper.send(stamp=shaper.now + 20 * MILLISECOND).wait_ns == 20 * MILLISECOND
    assert shaper.send(stamp=shaper.now - 1).wait_ns == shaper.queue_ns - 1_211_200
    shaper.now += SECOND
    assert shaper.send(stamp=shaper.now + 9 * SECOND).wait_ns == SECOND
    shaper.now += SECOND
    assert shaper.send(stamp=shaper.now + 3500 * SECOND).wait_ns == 0, "it is of another clock"


def test_on_egress_arp_waits_neither_for_a_full_queue_nor_for_what_its_sender_stamped() -> None:
    shaper = Native("100k")
    while shaper.send(flow=FLOOD).wait_ns is not None:
        pass
    assert shaper.queue_ns > SECOND // 2
    moment = shaper.now + SECOND
    assert {shaper.send(60, flow, ethertype=ARP, stamp=moment).wait_ns for flow in range(10, 30)} == {0}


@pytest.mark.parametrize("ethertype", [IPV4, ARP, OTHER])
def test_nobody_can_have_more_than_a_second_of_the_limit_leave_at_one_moment(ethertype: int) -> None:
    shaper = Native("10M")
    moment = shaper.now + 9 * SECOND
    every_gap = every(shaper, 1_230_000, 8.5)
    waits = [shaper.send(flow=passed, stamp=moment, ethertype=ethertype).wait_ns for passed in every_gap]
    assert max(wait for wait in waits if wait is not None) <= SECOND


@pytest.mark.parametrize("ahead", [MILLISECOND, SECOND, 3590 * SECOND])
@pytest.mark.parametrize("ethertype", [IPV4, ARP, OTHER])
@pytest.mark.parametrize("is_idle", [True, False])
def test_what_another_pod_stamped_does_not_hold_up_what_comes_in(ahead: int, ethertype: int, is_idle: bool) -> None:
    shaper = Native("100M", Direction.INGRESS)
    for _ in range(0 if is_idle else 50):
        shaper.send()
    assert shaper.send(98, PING, stamp=shaper.now + ahead, ethertype=ethertype).wait_ns == 0


@pytest.mark.parametrize("limit", RATES)
@pytest.mark.parametrize("direction", Direction)
def test_packets_that_claim_a_great_many_segments_do_not_void_the_limit(limit: str, direction: Direction) -> None:
    shaper = Native(limit, direction)
    passed = 0
    for _ in every(shaper, MILLISECOND, 10):
        wire = LONGEST if direction is Direction.EGRESS else 4 * 65_054
        if shaper.send(65_054, wire=wire).wait_ns is not None:
            passed += wire
    most = RATES[limit] * (10 + 1.2) / 8 + 2 * LONGEST
    assert passed <= most


def test_a_packet_longer_than_any_real_one_is_dropped_and_charged_to_nobody() -> None:
    shaper = Native("10M")
    assert shaper.send(60_054, wire=901_650_000).wait_ns is None
    assert (shaper.queue_ns, shaper.counters().drops) == (0, 1)


@pytest.mark.parametrize(("wire", "passes"), [(4 * 1418, True), (4 * 1418 + 1, False), (125_780, False)])
def test_a_received_packet_that_claims_more_than_four_times_its_length_is_made_up_and_costs_its_receiver_nothing(
    wire: int, passes: bool
) -> None:
    """It is cut behind the shaper, by a neighbour's choice into tens of thousands of packets that wait there."""
    shaper = Native("10M", Direction.INGRESS)
    assert (shaper.send(1418, wire=wire).wait_ns is not None) == passes
    assert shaper.queue_ns == pytest.approx(passes * wire * 800, abs=1)
    assert shaper.counters().drops == (not passes)


@pytest.mark.parametrize("merged", [16_000, 32_000, 65_000])
@pytest.mark.parametrize("high", ["100M", "1G"])
def test_pings_do_not_stop_while_big_packets_leave_at_a_limit_that_was_lowered(high: str, merged: int) -> None:
    """Of 100 a second some have to wait, as what goes ahead of the queue is bounded; but never all behind one."""
    shaper = Native(high, Direction.INGRESS)
    for _ in every(shaper, 10 * MILLISECOND, 0.5):
        shaper.send(98, PING)
        shaper.send(merged, TCP)
    shaper.limit("1M")
    for _ in range(20):  # what was on its way
        shaper.send(merged, TCP)
    assert shaper.queue_ns > 500 * MILLISECOND
    fates = [(passed, shaper.send(98, PING)) for passed in every(shaper, 10 * MILLISECOND, 2)]
    left = [passed + fate.wait_ns for passed, fate in fates if fate.wait_ns is not None]
    assert len(left) >= 0.98 * len(fates)
    assert max(after - before for before, after in itertools.pairwise(left)) < 50 * MILLISECOND


@pytest.mark.parametrize(("limit", "sparse", "more"), [("10M", 250_000, 500_000), ("100M", 800_000, 2_000_000)])
def test_a_flow_beside_a_bulk_one_waits_with_it_if_it_has_more_than_1_percent_and_340_kbit_s(
    limit: str, sparse: int, more: int
) -> None:
    """Both have less than a quarter of what the bulk flow has."""
    assert max(waits_beside_bulk(limit, sparse)) < MILLISECOND
    assert min(waits_beside_bulk(limit, more)) >= QUEUE


QUEUE = 5 * MILLISECOND
"""Shorter than CoDel's target, so nothing is signalled."""


def waits_beside_bulk(limit: str, bits_per_second: int) -> list[int]:
    """How long the packets of a steady flow wait while a bulk one keeps the queue as long as QUEUE."""
    shaper, waits = Native(limit, Direction.INGRESS), []
    due = shaper.now
    for passed in every(shaper, 100 * MICROSECOND, 2):
        while shaper.queue_ns < QUEUE:
            shaper.send(flow=TCP)
        if shaper.now >= due:
            due += 1000 * 8 * SECOND // bits_per_second
            wait = wait_of(shaper.send(1000, CALL))
            if passed > SECOND:
                waits.append(wait)
    return waits


@pytest.mark.parametrize("direction", Direction)
def test_eight_full_packets_may_wait_at_the_lowest_limits_too_where_they_take_longer_than_a_second(
    direction: Direction,
) -> None:
    shaper = Native("10k", direction)
    waits = [wait for _ in range(20) if (wait := shaper.send().wait_ns) is not None]
    assert max(waits) == 8 * 1514 * 8 * SECOND // 10_000


def test_of_merged_packets_four_may_wait_and_of_many_flows_eight_packets_of_each() -> None:
    shaper = Native("10M", Direction.INGRESS)
    merged = [shaper.send(65_000, segments=44).wait_ns or 0 for _ in range(10)]
    assert max(merged) == 4 * 65_000 * 8 * SECOND // shaper.bits_per_second > 150 * MILLISECOND
    shaper, chance, flows = Native("10M", Direction.INGRESS), random.Random(1), 50  # noqa: S311 - nobody guesses it
    packet = 1514 * 8 * SECOND // shaper.bits_per_second
    waits = [shaper.send(flow=chance.randrange(flows)).wait_ns or 0 for _ in every(shaper, packet * 2 // 3, 4)]
    assert 6 * flows * packet < max(waits) <= 8 * flows * packet


@pytest.mark.parametrize("load", [1.05, 1.3, 2.0])
@pytest.mark.parametrize("flows", [1000, 10_000])
def test_thousands_of_flows_use_up_the_limit_and_let_a_ping_pass(flows: int, load: float) -> None:
    """More flows than there are cells for. A packet of theirs may wait a second, as each of them has less than one."""
    shaper, chance = Native("100M", Direction.INGRESS), random.Random(flows * load)  # noqa: S311 - nobody guesses it
    packet = 1514 * 8 * SECOND / shaper.bits_per_second
    began, due, next_ping = shaper.now, 0.0, 0.0
    waits, pings, left = [0], [], 0
    while due < 6 * SECOND:
        due += chance.expovariate(load / packet)
        shaper.now = began + int(due)
        if due > next_ping:
            next_ping += 10 * MILLISECOND
            waited = shaper.send(98, flow=flows + 1).wait_ns
            assert waited is not None, "a ping was dropped"
            pings.append(waited)
        waited = shaper.send(flow=chance.randrange(flows)).wait_ns
        if waited is not None:
            waits.append(waited)
            left += 2 * SECOND < due + waited <= 6 * SECOND
    assert left * packet >= 0.99 * 4 * SECOND
    assert sorted(pings)[len(pings) * 99 // 100] <= 2.5 * MILLISECOND
    assert max(waits) <= SECOND


@pytest.mark.parametrize("flows", [1, 20_000])
@pytest.mark.parametrize(("limit", "load", "seconds"), [("100M", 6, 0.15), ("1G", 3, 0.1)])
def test_a_flood_of_small_packets_takes_a_bounded_part_of_the_node_s_memory(
    limit: str, load: int, seconds: float, flows: int
) -> None:
    """By time alone 200,000 of them wait at 100M, and two million at 1G."""
    shaper, chance = Native(limit, Direction.INGRESS), random.Random(flows)  # noqa: S311 - nobody guesses it
    leaving: list[int] = []
    most = 0
    for _ in every(shaper, 60 * 8 * SECOND // shaper.bits_per_second // load, seconds):
        wait = shaper.send(60, flow=chance.randrange(flows)).wait_ns
        if wait:
            heapq.heappush(leaving, shaper.now + wait)
        while leaving and leaving[0] <= shaper.now:
            heapq.heappop(leaving)
        most = max(most, len(leaving))
    assert most <= 120_000
    assert shaper.queue_ns > 10 * MILLISECOND, "it was no flood"


def test_what_other_cpus_queue_while_a_packet_is_on_its_way_is_kept() -> None:
    shaper = Native("100M", Direction.INGRESS)

    def others() -> None:
        for flow in range(100):
            shaper.send(flow=flow)

    shaper.meanwhile(others)
    shaper.send()
    charged = shaper.counters().packets
    assert charged > 50
    assert shaper.queue_ns == pytest.approx(charged * 1514 * 80, abs=200)


def test_what_two_cpus_charge_at_once_is_not_taken_for_times_of_a_lower_limit() -> None:
    """At 1M each of these takes 8.4 s, and neither sees the other's."""
    shaper = Native("1M")

    def other() -> None:
        shaper.send(65_054, 0, wire=LONGEST)

    shaper.meanwhile(other)
    shaper.send(65_054, 0, wire=LONGEST)
    shaper.now += MILLISECOND
    assert shaper.send(flow=2).wait_ns is None
    assert shaper.queue_ns > 16 * SECOND


@pytest.mark.parametrize("higher", ["2k", "10k", "100k", "1G"])
@pytest.mark.parametrize("direction", Direction)
def test_a_limit_that_is_raised_lets_packets_pass_though_one_has_taken_the_timeline_far_ahead(
    higher: str, direction: Direction
) -> None:
    shaper = Native("1k", direction)
    shaper.send(65_000)
    shaper.now += SECOND
    shaper.limit(higher)
    assert shaper.send(flow=TCP + 1).wait_ns is not None


@pytest.mark.parametrize("may_mark", [False, True])
@pytest.mark.parametrize("segments", [0, 1, 44])
@pytest.mark.parametrize("direction", Direction)
def test_what_is_dropped_or_marked_is_counted_in_the_same_packets_as_what_passes(
    segments: int, direction: Direction, may_mark: bool
) -> None:
    shaper, each = Native("100M", direction), max(segments, 1)
    fates = [
        shaper.send(each * 1514, FLOOD, segments=segments, may_mark=may_mark)
        for _ in every(shaper, each * 1514 * 75, 3)
    ]
    counters = shaper.counters()
    dropped, marked = sum(fate.wait_ns is None for fate in fates), sum(fate.marked for fate in fates)
    assert (marked if may_mark else dropped) > 0
    assert (counters.drops, counters.marks) == (dropped * each, marked * each)
    assert counters.packets + counters.drops == len(fates) * each


@pytest.mark.parametrize(
    ("low", "higher", "shorter"),
    [
        *(("1k", "1G", 1e6), ("1M", "100M", 100), ("10M", "100M", 10), ("100M", "1G", 1), ("100M", "10M", 1)),
        *(("1k", "2k", math.inf), ("1k", "1900", math.inf), ("1M", "1900k", math.inf)),
    ],
)
@pytest.mark.parametrize("direction", Direction)
def test_the_queue_that_the_metrics_show_after_a_limit_was_raised_is_what_the_next_packet_waits(
    low: str, higher: str, shorter: float, direction: Direction
) -> None:
    shaper = Native(low, direction)
    for _ in range(8):
        shaper.send(64_000, FLOOD)
    before = shaper.queue_ns
    shaper.limit(higher)
    shown = shaper.queue_ns
    assert shown == int(before / shorter)
    assert shaper.send(64_000, FLOOD).wait_ns in {shown, None}


@pytest.mark.parametrize("higher", ["2M", "5M", "10M", "100M", "1G"])
@pytest.mark.parametrize("direction", Direction)
def test_a_raised_limit_is_kept_from_the_first_moment_and_used_up_at_once(higher: str, direction: Direction) -> None:
    """What waits keeps its stamps, of up to a second: what comes goes between."""
    shaper = Native("1M", direction)
    left = [shaper.queue_ns for number in range(80) if shaper.send(flow=number % 20).wait_ns is not None]
    assert max(left) > 600 * MILLISECOND
    shaper.limit(higher)
    each = 1514 * 8 * SECOND / shaper.bits_per_second
    for passed in every(shaper, int(each / 1.02), 1.5):
        fate = shaper.send(flow=int(passed / each) % 20)
        if fate.wait_ns is not None:
            left.append(passed + fate.wait_ns)
    for after in (0.1 * SECOND, 0.25 * SECOND, 0.5 * SECOND, SECOND, 1.5 * SECOND):
        used = sum(at <= after for at in left) * each
        assert used <= 1.01 * after + 2 * each
        assert used >= 0.75 * after or after < SECOND // 2


@pytest.mark.parametrize("low", ["1k", "10k", "100k"])
def test_times_of_a_low_limit_do_not_last_when_it_is_raised(low: str) -> None:
    shaper = Native(low)
    for passed in every(shaper, 2 * MILLISECOND, 200):
        shaper.send(flow=passed // 2 // MILLISECOND % 3)
        if passed % (100 * MILLISECOND) == 0:
            shaper.send(98, PING)
    shaper.limit("1G")
    waits = []
    for passed in every(shaper, 10_000, 3):
        shaper.send(flow=FLOOD)
        if passed % (100 * MILLISECOND) == 0:
            waits.append(wait_of(shaper.send(98, PING)))
    assert max(waits[20:]) <= MILLISECOND
