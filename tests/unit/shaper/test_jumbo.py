"""On a network of jumbo frames a flow may have as many packets waiting as on any other, without losing one of them."""

import heapq
import itertools

import pytest

from tests.unit.shaper.native import SECOND, Native
from webhook.common.contract import Direction

FLOWS, SENT_SECONDS = 16, 10
ROUND_TRIP = SECOND // 1000


def lost(limit: str, direction: Direction, *, length: int, in_flight: int, merged: int = 1) -> float:
    """The share of packets that is lost of flows that keep so many under way, whatever becomes of them."""
    shaper = Native(limit, direction)
    began, sent, dropped, order = shaper.now, 0, 0, itertools.count()
    due = [(began + flow * ROUND_TRIP, next(order), flow) for flow in range(FLOWS) for _ in range(in_flight)]
    while due[0][0] < began + SENT_SECONDS * SECOND:
        shaper.now, _, flow = heapq.heappop(due)
        wait = shaper.send(merged * length, flow, segments=merged).wait_ns
        heapq.heappush(due, (shaper.now + ROUND_TRIP + (wait or 0), next(order), flow))
        if shaper.now > began + SECOND:
            sent, dropped = sent + 1, dropped + (wait is None)
    return dropped / sent


@pytest.mark.parametrize(
    ("limit", "length"), [("10M", 1514), ("10M", 4014), ("100M", 1514), ("100M", 4014), ("100M", 9014)]
)
@pytest.mark.parametrize("direction", Direction)
def test_two_packets_of_each_flow_may_wait_however_long_they_are(limit: str, direction: Direction, length: int) -> None:
    """TCP that keeps fewer waits for its retransmission timeout when it loses one."""
    assert lost(limit, direction, length=length, in_flight=2) == 0


@pytest.mark.parametrize("direction", Direction)
def test_packets_that_come_merged_are_as_long_as_their_segments(direction: Direction) -> None:
    assert lost("100M", direction, length=9014, in_flight=1, merged=2) == 0
    assert lost("100M", direction, length=1514, in_flight=3, merged=6) > 0


@pytest.mark.parametrize("length", [1514, 9014])
def test_of_more_some_are_lost(length: int) -> None:
    assert lost("10M", Direction.INGRESS, length=length, in_flight=12) > 0
