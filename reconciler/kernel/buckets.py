"""The entries of the shaper's two maps as bytes, and the figures that the shaper computes with. Pure.

Mirrors `struct limit` and the head of `struct state` in `shaper.c`.
"""

import struct
from dataclasses import dataclass
from typing import Final

from reconciler.model import LimitEntry
from webhook.common.contract import MAXIMUM_BITS_PER_SECOND, MINIMUM_BITS_PER_SECOND

_LIMIT: Final = struct.Struct("=QQQQQQQIIII40s")
_COUNTERS: Final = struct.Struct("=QQQQQ")
_WORD: Final = struct.Struct("=Q")
_NEXT_OFFSET: Final = 5 * 8
"""The shared timeline in struct state, after the counters."""
_RATE_OFFSET: Final = 5 * 8 + 10 * 8 + 6 * 4
"""The limit that the last packet met; three more words follow it, then the flows."""
LIMIT_BYTES: Final = _LIMIT.size
STATE_BYTES: Final = _RATE_OFFSET + 4 * 8 + 4096 * 8
EMPTY_LIMIT: Final = bytes(LIMIT_BYTES)

FULL_PACKET_BYTES: Final = 1514
MULTIPLIER_BITS: Final = 40
MINIMUM_TARGET_NS: Final = 10_000_000
MINIMUM_INTERVAL_NS: Final = 100_000_000
MINIMUM_CAP_NS: Final = 150_000_000
MOST_WAIT_NS: Final = 1_000_000_000
INTERVAL_TARGETS: Final = 10
CAP_PACKETS: Final = 8
MINIMUM_MOST_HAD_BYTES: Final = 1 << 17
MOST_HAD_BITS: Final = 16
SPARSE_BYTES: Final = 1 << 12
SPARSE_NS: Final = 1_000_000
MINIMUM_BORROWED_SHIFT: Final = 24


@dataclass(frozen=True, slots=True)
class Timing:
    """The shaper's figures for one rate. Times in nanoseconds."""

    multiplier: int
    shift: int
    unit_shift: int
    sparse_had: int
    borrowed_shift: int
    target_ns: int
    interval_ns: int
    cap_ns: int


@dataclass(frozen=True, slots=True)
class Counters:
    """A bucket's counters in its present generation: bytes on the wire and packets that passed; drops; ECN marks."""

    generation: int
    bytes: int
    packets: int
    drops: int
    marks: int


def timing(bits_per_second: int) -> Timing:
    """The shaper's figures for a rate.

    The time of a byte is a fixed-point number whose multiplier has 40 bits, so 1 kbit/s and 1 Pbit/s are both exact to
    a billionth. CoDel's target is 10 ms, or one and a half full packets where that is longer, and its interval 100 ms
    or 10 targets. That is the upper end of what RFC 8289 advises (5 to 10 % of the interval): only bulk flows wait in
    the queue, as sparse ones pass it, and it carries them over a pause of the sender. The queue is no longer than
    150 ms, or 8 full packets of each flow where that is longer, but a second at most. 8 full packets may wait at any
    rate: below 97k they take more than a second.

    A flow's recent bytes are counted in units of 2**unit_shift bytes, so that 16 bits hold all that the rate can bring.
    A sparse flow has had at most 1 ms of the rate lately, or 4 KiB. 2**borrowed_shift ns of the rate may go ahead of
    the queue: 17 ms, or about what CoDel lets wait where that is longer, as 17 ms of 100 kbit/s are two pings.
    """
    packet_ns = FULL_PACKET_BYTES * 8 * 10**9 // bits_per_second
    byte_numerator = 8 * 10**9
    shift = 0
    while (byte_numerator << (shift + 1)) // bits_per_second < 1 << MULTIPLIER_BITS:
        shift += 1
    # The bytes of a flow at the full rate in 67 ms / ln 2, the time over which the shaper sums up, and a GSO packet.
    most_had = max(MINIMUM_MOST_HAD_BYTES, bits_per_second // 8 // 10)
    unit_shift = most_had.bit_length() - MOST_HAD_BITS
    target_ns = max(MINIMUM_TARGET_NS, packet_ns * 3 // 2)
    return Timing(
        multiplier=(byte_numerator << shift) // bits_per_second,
        shift=shift,
        unit_shift=unit_shift,
        sparse_had=max(SPARSE_BYTES, bits_per_second * SPARSE_NS // 8 // 10**9) >> unit_shift,
        borrowed_shift=max(MINIMUM_BORROWED_SHIFT, target_ns.bit_length() - 1),
        target_ns=target_ns,
        interval_ns=max(MINIMUM_INTERVAL_NS, INTERVAL_TARGETS * target_ns),
        cap_ns=max(MINIMUM_CAP_NS, CAP_PACKETS * packet_ns),
    )


def is_rate(bits_per_second: int) -> bool:
    """Whether this is a valid limit: others may have written an invalid rate into the map, such as 0."""
    return MINIMUM_BITS_PER_SECOND <= bits_per_second <= MAXIMUM_BITS_PER_SECOND


def encode_limit(entry: LimitEntry) -> bytes:
    """An entry of the limits map."""
    figures = timing(entry.bits_per_second)
    return _LIMIT.pack(
        entry.bits_per_second,
        entry.generation,
        figures.multiplier,
        figures.target_ns,
        figures.interval_ns,
        figures.cap_ns,
        entry.netns_inode,
        figures.shift,
        figures.unit_shift,
        figures.sparse_had,
        figures.borrowed_shift,
        entry.pod_uid.encode(),
    )


def decode_limit(value: bytes) -> LimitEntry | None:
    """The decoded entry of the limits map; None for an empty one."""
    bits_per_second, generation, _, _, _, _, netns_inode, _, _, _, _, pod_uid = _LIMIT.unpack(value)
    if not generation:
        return None
    return LimitEntry(bits_per_second, generation, pod_uid.rstrip(b"\0").decode("ascii", "replace"), netns_inode)


def decode_counters(value: bytes) -> Counters:
    """The counters at the head of an entry of the state map."""
    return Counters(*_COUNTERS.unpack_from(value))


def queue_ns(value: bytes, bits_per_second: int, now_ns: int) -> int:
    """How long a packet of a bulk flow would wait if it came now, from an entry of the state map and the limit.

    Computed as the shaper does when a packet comes (`change_rate`): a long queue of a lower limit counts for as long as
    it takes now, and nothing is left of a timeline that another limit took far ahead, which may be minutes. Without a
    valid rate there is no wait.
    """
    if not is_rate(bits_per_second):
        return 0
    (free_at_ns,), (rate,) = _WORD.unpack_from(value, _NEXT_OFFSET), _WORD.unpack_from(value, _RATE_OFFSET)
    wait_ns, cap_ns = max(0, int(free_at_ns) - now_ns), timing(bits_per_second).cap_ns
    if rate == bits_per_second or wait_ns <= cap_ns:
        return wait_ns
    wait_ns //= max(1, bits_per_second // int(rate)) if rate else 1
    return wait_ns if wait_ns <= max(MOST_WAIT_NS, cap_ns) else 0
