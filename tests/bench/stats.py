"""What raw measurements come to: percentiles, Jain's index, rates, windows, and when a new rate holds. Pure."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LOST_MS = 1000.0
"""What an unanswered probe counts as: the wait after which a resolver asks again."""
BIN_NS = 10_000_000
"""Receivers count bytes in bins of this length."""
BINS_A_SECOND = 10**9 // BIN_NS
TCP_SHARE = 1448 / 1514
"""The share of a limit, which counts whole packets, that TCP over IPv4 with timestamps carries at an MTU of 1500."""
UDP_SHARE = 1472 / 1514
PACKET_BITS = 1514 * 8


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that at least this share of all is not above."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def jain(values: Sequence[float]) -> float:
    """Jain's fairness index: 1 when all are equal, 1/n when one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 0.0


@dataclass(frozen=True, slots=True)
class Waits:
    """A probe's times in ms."""

    p50: float
    p99: float
    largest: float
    count: int
    lost: int


def waits(times_ms: Iterable[float | None]) -> Waits | None:
    """Sum up a probe's times; None is one without an answer. None when nothing was sent."""
    seen = list(times_ms)
    if not seen:
        return None
    counted = [LOST_MS if time is None else time for time in seen]
    return Waits(
        percentile(counted, 0.5), percentile(counted, 0.99), max(counted), len(seen), sum(t is None for t in seen)
    )


def added(loaded: Waits, unloaded: Waits) -> dict[str, float]:
    """What load adds to each figure of a probe, in ms, beside the figures themselves."""
    return {
        "p50": loaded.p50 - unloaded.p50,
        "p99": loaded.p99 - unloaded.p99,
        "largest": loaded.largest - unloaded.largest,
        "count": loaded.count,
        "lost": loaded.lost,
        "unloaded_p50": unloaded.p50,
        "unloaded_p99": unloaded.p99,
    }


def first_second(bins: Sequence[int], first_packet: int) -> float:
    """Mbit/s in the second after the first packet, which itself does not count: it need not have waited."""
    return max(0, sum(bins[:BINS_A_SECOND]) - first_packet) * 8 / 1e6


def largest_window(packets: Sequence[tuple[int, int]], window_ns: int, stall_ns: int) -> float:
    """The most that a window carried, in Mbit/s, of packets as (time in ns, bytes) in order of time.

    A window begins up to `stall_ns` before its first packet when nothing came in that time: a machine that stalls holds
    packets back that were due then, and lets them go together.
    """
    largest = held = oldest = 0
    began = packets[0][0]
    for at, size in packets:
        held += size
        while began <= at - window_ns:
            held -= packets[oldest][1]
            oldest += 1
            began = max(packets[oldest][0] - stall_ns, packets[oldest - 1][0])
        largest = max(largest, held)
    return largest * 8 / (window_ns / 1e9) / 1e6


def binned(packets: Sequence[tuple[int, int]], period: tuple[int, int]) -> list[int]:
    """Bytes in each whole bin of a period, of packets as (time in ns, bytes)."""
    begin, end = period
    bins = [0] * ((end - begin) // BIN_NS)
    for at, size in packets:
        place = (at - begin) // BIN_NS
        if 0 <= place < len(bins):
            bins[place] += size
    return bins


def settled(
    bins: Sequence[int], wanted_bits_per_second: float, *, lowered: bool, window: int = 50, tolerance: float = 0.1
) -> float:
    """Seconds from the first bin until every window of `window` bins is within `tolerance` of the wanted goodput.

    Of a rate that was lowered only not to exceed it is asked: how soon a sender recovers is what `carried_again` tells.
    Infinity when the last window is off.
    """
    lowest = 0 if lowered else (1 - tolerance) * wanted_bits_per_second
    return _from_when_on(bins, lowest, (1 + tolerance) * wanted_bits_per_second, window)


def carried_again(bins: Sequence[int], wanted_bits_per_second: float, *, window: int = 50, share: float = 0.5) -> float:
    """Seconds from the first bin until every window has at least this share of the wanted goodput; infinity as above.

    What `settled` does not ask of a rate that was lowered: who lets nothing pass does not exceed it either.
    """
    return _from_when_on(bins, share * wanted_bits_per_second, math.inf, window)


def _from_when_on(bins: Sequence[int], lowest: float, highest: float, window: int) -> float:
    """Seconds until every window is between these rates in bit/s."""
    scale = 8 / (window * BIN_NS / 1e9)
    held = sum(bins[:window])
    late = -1
    windows = len(bins) - window + 1
    for start in range(windows):
        if start:
            held += bins[start + window - 1] - bins[start - 1]
        if not lowest <= held * scale <= highest:
            late = start
    return math.inf if late == windows - 1 else (late + 1) * BIN_NS / 1e9


def longest_silence(answered_ns: Sequence[int], began_ns: int, ended_ns: int) -> float:
    """The longest time in seconds without an answer between two moments."""
    moments = [began_ns, *sorted(at for at in answered_ns if began_ns <= at <= ended_ns), ended_ns]
    return max(later - earlier for earlier, later in itertools.pairwise(moments)) / 1e9


def kernel_series(release: str) -> str:
    """Of a kernel's release what says how it behaves, and not whose build it is: `6.18` of `6.18.44-some-cloud`."""
    return ".".join(release.split("-", maxsplit=1)[0].split(".")[:2])
