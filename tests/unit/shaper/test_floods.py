"""What the shaper does with flows that heed no signal. Times in ns."""

from collections.abc import Iterator

import pytest

from tests.unit.shaper.native import ARP, IPV4, MILLISECOND, SECOND, Native
from tests.unit.shaper.traffic import CALL, FLOOD, OTHER, PING, RATES, every, tcp_beside_a_flood, wait_of
from webhook.common.contract import Direction


@pytest.mark.parametrize("ethertype", [IPV4, ARP, OTHER])
@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("length", [60, 1514])
def test_a_flood_leaves_its_share_to_others_whatever_it_says_it_is(
    ethertype: int, direction: Direction, length: int
) -> None:
    shaper = Native("10M", direction)
    assert tcp_beside_a_flood(shaper, load=1.2, length=length, seconds=(0, 15), ethertype=ethertype) >= 0.3


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("load", [1.2, 10.0])
def test_a_flood_leaves_its_share_to_others_at_a_high_rate_too(load: float, direction: Direction) -> None:
    """On egress a queue is long sooner: what waits of a flood then is not to have others signalled for it."""
    assert tcp_beside_a_flood(Native("100M", direction), load=load, length=1514, seconds=(4, 7)) >= 0.4


def carried_alone(shaper: Native, *, load: float, burst_ms: int) -> float:
    """The share of the limit that leaves, between two moments, of a flood of which as much comes at once each time."""
    began, leaving = shaper.now, 0
    at_once = int(load * burst_ms / 1e3 * shaper.bits_per_second / 8 / 1514)
    for passed in every(shaper, int(at_once * 1514 * 8 * SECOND / load / shaper.bits_per_second), 4):
        for _ in range(at_once):
            wait = shaper.send(1514, FLOOD).wait_ns
            leaving += wait is not None and 2 * SECOND <= passed + wait < 4 * SECOND
    assert shaper.now >= began + 4 * SECOND
    return leaving * 1514 * 8 / 2 / shaper.bits_per_second


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("limit", ["3M", "10M", "100M"])
@pytest.mark.parametrize(("burst_ms", "load"), [(5, 2.0), (20, 1.2), (20, 5.0), (33, 1.2), (33, 5.0)])
def test_a_flood_alone_has_the_limit_also_if_it_comes_in_bursts(
    burst_ms: int, load: float, limit: str, direction: Direction
) -> None:
    """As a video's frames do, or what a sender makes up for after its CPU was taken from it."""
    assert carried_alone(Native(limit, direction), load=load, burst_ms=burst_ms) >= 0.98


@pytest.mark.parametrize("load", [0.9, 1.2, 5.0])
@pytest.mark.parametrize(("limit", "segments"), [("1M", 11), ("1M", 44), ("10M", 44)])
def test_a_flood_whose_packets_come_merged_leaves_no_less_to_others(limit: str, segments: int, load: float) -> None:
    shaper = Native(limit, Direction.INGRESS)
    length = segments * 1448 + 66
    assert tcp_beside_a_flood(shaper, load=load, length=length, segments=segments, seconds=(8, 20)) >= 0.35


@pytest.mark.parametrize("load", [3.0, 5.0])
@pytest.mark.parametrize("merged", [10, 44])
def test_a_flow_whose_packets_come_merged_is_not_taken_for_the_flood_beside_it(merged: int, load: float) -> None:
    shaper = Native("1M", Direction.INGRESS)
    assert tcp_beside_a_flood(shaper, load=load, length=1514, seconds=(10, 60), merged=merged) >= 0.5


def beside_a_flood(
    shaper: Native, flow: int, length: int, *, every_ms: int, seconds: float, pause: tuple[float, float]
) -> Iterator[tuple[int, int]]:
    """Packets of a flow beside a flood of 1.2 times the limit, which pauses once: when, and how long each waits."""
    between = 10 * MILLISECOND * RATES["1M"] // shaper.bits_per_second
    flood = due = shaper.now
    for passed in every(shaper, between // 4, seconds):
        if shaper.now >= flood and not pause[0] * SECOND < passed < pause[1] * SECOND:
            flood = shaper.now + between
            shaper.send(flow=FLOOD)
        if shaper.now >= due:
            due += every_ms * MILLISECOND
            yield passed, wait_of(shaper.send(length, flow))


@pytest.mark.parametrize("limit", RATES)
@pytest.mark.parametrize("direction", Direction)
def test_a_ping_beside_a_flood_that_paused_waits_no_longer_than_before(limit: str, direction: Direction) -> None:
    pings = beside_a_flood(Native(limit, direction), PING, 98, every_ms=100, seconds=9, pause=(3, 3.5))
    waits = [wait for passed, wait in pings if passed > 5 * SECOND]
    assert max(waits) <= 2 * 1514 * 8 * SECOND / RATES[limit]


@pytest.mark.parametrize("limit", RATES)
@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("pause", [(0, 0), (2, 2.5)])
def test_a_call_beside_a_flood_alone_does_not_wait(
    limit: str, direction: Direction, pause: tuple[float, float]
) -> None:
    call = beside_a_flood(Native(limit, direction), CALL, 200, every_ms=20, seconds=5, pause=pause)
    waits = [wait for passed, wait in call if passed > 3 * SECOND]
    assert max(waits) <= 1514 * 8 * SECOND / RATES[limit]


def test_a_flood_of_an_hour_ago_makes_no_flow_sparse() -> None:
    ahead = []
    for flood in (False, True):
        shaper, went = Native("10M"), 0
        for _ in every(shaper, MILLISECOND, 3):
            if flood:
                shaper.send(flow=FLOOD)
        shaper.now += 4300 * SECOND  # when a clock of 32 bits would take it for the future
        for _ in every(shaper, 60 * MILLISECOND, 2):
            for flow in range(10, 70):
                before = shaper.queue_ns
                wait = shaper.send(flow=flow).wait_ns
                went += wait is not None and wait < before
        ahead.append(went)
    without, after_one = ahead
    assert after_one <= without + 5
