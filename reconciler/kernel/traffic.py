"""What a network namespace's links have sent, and what waits in their queues. Read without decoding anything else."""

import struct
from collections.abc import Collection
from typing import Final, NamedTuple

from reconciler.bypass import Traffic
from reconciler.kernel.netlink import Netlink
from reconciler.kernel.observe import TC_H_ROOT, dump_links, dump_qdiscs, name_and_kind
from reconciler.kernel.raw import (
    IFLA_MTU,
    IFLA_STATS64,
    LINK_ATTRIBUTES,
    TC_ATTRIBUTES,
    TCA_STATS,
    link_index_of,
    link_is_up,
    number,
    raw_attributes,
    traffic_control,
)

_STATS64: Final = struct.Struct("=QQQQ")
"""The head of struct rtnl_link_stats64 (uapi/linux/if_link.h): packets received and sent, bytes received and sent."""
_TUNNELS: Final = frozenset(
    {
        "bareudp",
        "erspan",
        "geneve",
        "gre",
        "gretap",
        "ip6erspan",
        "ip6gre",
        "ip6gretap",
        "ip6tnl",
        "ipip",
        "sit",
        "vxlan",
    }
)
"""Kinds of links that wrap what they send into packets of another link."""
_TC_STATS: Final = struct.Struct("=QIIIIIII")
"""struct tc_stats (uapi/linux/gen_stats.h): bytes, packets, drops, overlimits, bps, pps, qlen, backlog."""


class Sent(NamedTuple):
    """What links have sent, by index, the largest of their MTUs, and whether a tunnel is up beside them."""

    by_link: dict[int, Traffic]
    largest_mtu: int
    has_tunnel: bool


def sent(netlink: Netlink, links: Collection[str]) -> Sent:
    """What the named links have sent. A GSO packet counts as one packet, unsplit."""
    found, largest_mtu, has_tunnel = dict[int, Traffic](), 0, False
    for message in dump_links(netlink):
        held = raw_attributes(message, LINK_ATTRIBUTES)
        name, kind = name_and_kind(message)
        has_tunnel |= kind in _TUNNELS and link_is_up(message)  # some modules make one in each netns, which is down
        if name in links and IFLA_STATS64 in held:
            _, packets, _, size = _STATS64.unpack_from(held[IFLA_STATS64])
            found[link_index_of(message)] = Traffic(size, packets)
            largest_mtu = max(largest_mtu, number(held.get(IFLA_MTU)) or 0)
    return Sent(found, largest_mtu, has_tunnel)


def queued(netlink: Netlink) -> dict[int, Traffic]:
    """What waits in links' root qdiscs, by link index. A GSO packet counts as one, with the bytes of its segments."""
    found = {}
    for message in dump_qdiscs(netlink):
        head = traffic_control(message)
        stats = raw_attributes(message, TC_ATTRIBUTES).get(TCA_STATS, b"") if head.parent == TC_H_ROOT else b""
        if len(stats) >= _TC_STATS.size:
            *_, packets, size = _TC_STATS.unpack_from(stats)
            found[head.link] = Traffic(size, packets)
    return found
