"""What a Pod sent past its egress limit: what its links sent, less what its bucket was charged. Pure.

A packet socket with PACKET_QDISC_BYPASS (packet(7); CAP_NET_RAW) hands packets to the link and not to the filters, so
the link counts them and the shaper does not. Everything else is counted by both, but differently: the bucket counts a
GSO packet as its segments, with their headers, and the link as one packet, unless it is longer than `gso_max_size`:
then it is cut behind the queue, to which it is one (trains of UDP, and what an open connection sends after its limit
was lowered). And queued packets are already charged but not yet sent. Nor can all counters be read at the same moment.
So a Sample has bounds, and the difference of two samples is a lower bound: never too high, and too low by the headers
of GSO segments (4 % of bulk TCP) and by what may yet be cut.

One exception: when the Pod's own tunnel has wrapped a GSO packet, the kernel's estimate leaves out headers
(qdisc_pkt_len_init), so such traffic is charged some 5 % less than the link sends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Self

TUNNEL_PERCENT: Final = 8
"""If a tunnel was up at either sample, an excess of up to this share of the charged bytes may be headers."""

SMALLEST_SEGMENT_BYTES: Final = 576
"""What is cut makes no smaller packets, but for its last: no usual network carries less (RFC 791)."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes and packets."""

    bytes: int = 0
    packets: int = 0

    def __add__(self, other: Self) -> Traffic:
        return Traffic(self.bytes + other.bytes, self.packets + other.packets)

    def __sub__(self, other: Self) -> Traffic:
        return Traffic(self.bytes - other.bytes, self.packets - other.packets)


@dataclass(frozen=True, slots=True)
class Sample:
    """What was sent past the bucket up to now is between `least` and `most`, up to an unknown constant.

    The constant is the same for samples of one `epoch`: the slot's generation, how often the shaping in the netns has
    changed, and the indexes of the links that were found: one that is renamed is missed until its new name is known.
    `largest_bytes` is the size of the largest packet on the wire. `charged_bytes` is what the bucket was charged so
    far, and `has_tunnel` whether a tunnel is up in the netns.
    """

    epoch: tuple[int, int, frozenset[int]]
    least: Traffic
    most: Traffic
    largest_bytes: int
    charged_bytes: int = 0
    has_tunnel: bool = False


def total(by_link: Mapping[int, Traffic], links: Iterable[int]) -> Traffic:
    """The traffic of some links, by their indexes."""
    return sum((by_link.get(index, Traffic()) for index in links), Traffic())


def sample(
    epoch: tuple[int, int, frozenset[int]],
    *,
    charged: tuple[Traffic, Traffic],
    queued: tuple[Traffic, Traffic],
    sent: Traffic,
    largest_bytes: int,
    has_tunnel: bool = False,
) -> Sample:
    """A sample from figures read in this order: charged, queued, sent, queued, charged."""
    cut = Traffic(0, queued[0].bytes // SMALLEST_SEGMENT_BYTES)
    least, most = sent + queued[1] - charged[1], sent + queued[0] + cut - charged[0]
    return Sample(epoch, least, most, largest_bytes, charged[0].bytes, has_tunnel)


def unshaped(earlier: Sample | None, later: Sample) -> Traffic:
    """The least that was sent past the bucket between two samples; zero without an earlier one of the same epoch."""
    if earlier is None or earlier.epoch != later.epoch:
        return Traffic()
    grown = later.least - earlier.most
    charged_bytes = later.charged_bytes - earlier.charged_bytes
    if (earlier.has_tunnel or later.has_tunnel) and grown.bytes * 100 <= charged_bytes * TUNNEL_PERCENT:
        return Traffic()
    size = max(0, grown.bytes)
    return Traffic(size, max(0, grown.packets, -(-size // later.largest_bytes)))
