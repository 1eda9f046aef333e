"""fq never drops what the shaper has admitted: its own bounds are twice as far as anything gets. Times in ns."""

import re
from collections.abc import Mapping

import pytest

from reconciler.kernel.attributes import FQ_BOUNDS, paced_bounds
from reconciler.kernel.buckets import timing
from reconciler.model import SPLIT_BELOW
from tests.unit.shaper.native import SECOND, SOURCE, Native
from webhook.common.contract import Direction

BOUNDS = pytest.mark.parametrize("bounds", [FQ_BOUNDS, paced_bounds(125)], ids=["fq", "fq below tbf"])
HEADERS = 54  # of Ethernet, IPv4 and TCP, the shortest that are cut into segments


def defined(name: str) -> int:
    """A figure of shaper.c's."""
    found = re.search(rf"^#define {name} \(?(\d+)( \* NANOSECONDS_PER_SECOND)?\b", SOURCE.read_text(), re.MULTILINE)
    assert found, name
    return int(found[1]) * (SECOND if found[2] else 1)


def most_wait(bits_per_second: int) -> int:
    return max(timing(bits_per_second).cap_ns, defined("MOST_WAIT"))


@BOUNDS
def test_all_packets_that_may_wait_fit_into_fq_and_into_one_of_its_flows(bounds: Mapping[str, int]) -> None:
    most = 1 << (defined("MOST_PACKETS_SHIFT") + 1)  # of sparse flows
    assert min(bounds["TCA_FQ_PLIMIT"], bounds["TCA_FQ_FLOW_PLIMIT"]) > 2 * most


@pytest.mark.parametrize("bits_per_second", [1000, 1_000_000, SPLIT_BELOW - 1])
def test_all_segments_of_packets_that_wait_fit_into_the_fq_below_the_tbf(bits_per_second: int) -> None:
    """The shaper counts the whole packets, which the tbf cuts."""
    times = defined("MOST_SEGMENTED")
    shortest = HEADERS * times // (times - 1)  # of others, the segments are that many times as long as the packet
    most = most_wait(bits_per_second) * bits_per_second // 8 // SECOND // shortest
    bounds = paced_bounds(bits_per_second // 8)
    assert min(bounds["TCA_FQ_PLIMIT"], bounds["TCA_FQ_FLOW_PLIMIT"]) > 2 * most


@BOUNDS
def test_no_stamp_is_beyond_fqs_horizon(bounds: Mapping[str, int]) -> None:
    longest = most_wait(1000) + defined("OWN_STAMP_HORIZON")
    assert bounds["TCA_FQ_HORIZON"] * 1000 > 2 * longest


@pytest.mark.parametrize("ahead", [0, SECOND, 9 * SECOND])
@pytest.mark.parametrize("length", [60, 1514, 65_000])
@pytest.mark.parametrize("direction", Direction)
def test_at_the_lowest_limit_nothing_waits_for_longer_than_that(direction: Direction, length: int, ahead: int) -> None:
    shaper, longest = Native("1k", direction), 0
    for flow in range(1000):
        longest = max(longest, shaper.send(length, flow, stamp=ahead and shaper.now + ahead).wait_ns or 0)
    assert longest <= most_wait(1000) + defined("OWN_STAMP_HORIZON")
    assert longest >= most_wait(1000) * 0.9 or length > 1514
