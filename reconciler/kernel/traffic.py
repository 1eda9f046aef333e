"""What a network namespace's links have sent, and what waits in their queues. Read without decoding all else."""

import struct
from collections.abc import Collection
from typing import Final

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from reconciler.bypass import Traffic
from reconciler.kernel.netlink import Netlink
from reconciler.kernel.observe import RTM_GETLINK, RTM_GETQDISC, TC_H_ROOT

_HEADER_BYTES: Final = 16
_LINK_BYTES: Final = 16
_INDEX: Final = struct.Struct("=i")
_IFLA_IFNAME: Final = 3
_IFLA_MTU: Final = 4
_IFLA_STATS64: Final = 23
_STATS64: Final = struct.Struct("=QQQQ")
"""The head of struct rtnl_link_stats64 (uapi/linux/if_link.h): packets received and sent, bytes received and sent."""
_TCMSG: Final = struct.Struct("=B3xiIII")
_TCA_STATS: Final = 3
_TC_STATS: Final = struct.Struct("=QIIIIIII")
"""struct tc_stats (uapi/linux/gen_stats.h): bytes, packets, drops, overlimits, bps, pps, qlen, backlog."""


class _Link(ifinfmsg):  # type: ignore[misc] # pyroute2 ships no types
    """A link whose attributes are not decoded, which takes most of the time."""

    nla_map = ()


class _Qdisc(tcmsg):  # type: ignore[misc] # as above
    """A qdisc, likewise."""

    nla_map = ()


def sent(netlink: Netlink, links: Collection[str]) -> tuple[dict[int, Traffic], int]:
    """What the named links have sent, by index, and the largest of their MTUs. A GSO packet counts as one, as it is."""
    found, largest_mtu = {}, 0
    for message in netlink.dump(_Link(), RTM_GETLINK):
        held = _attributes(message.data, _HEADER_BYTES + _LINK_BYTES)
        name = held.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
        if name in links and _IFLA_STATS64 in held:
            _, packets, _, size = _STATS64.unpack_from(held[_IFLA_STATS64])
            (index,) = _INDEX.unpack_from(message.data, _HEADER_BYTES + 4)
            found[index] = Traffic(size, packets)
            largest_mtu = max(largest_mtu, int.from_bytes(held.get(_IFLA_MTU, b""), "little"))
    return found, largest_mtu


def queued(netlink: Netlink) -> dict[int, Traffic]:
    """What waits in links' root qdiscs, by the link's index. A GSO packet is one, and has the bytes of its segments."""
    found = {}
    for message in netlink.dump(_Qdisc(), RTM_GETQDISC):
        _, index, _, parent, _ = _TCMSG.unpack_from(message.data, _HEADER_BYTES)
        held = _attributes(message.data, _HEADER_BYTES + _TCMSG.size)
        if parent == TC_H_ROOT and len(held.get(_TCA_STATS, b"")) >= _TC_STATS.size:
            *_, packets, size = _TC_STATS.unpack_from(held[_TCA_STATS])
            found[index] = Traffic(size, packets)
    return found


def _attributes(message: bytes, offset: int) -> dict[int, bytes]:
    """The attributes that follow a message's fixed part, by number (rtnetlink(7))."""
    found = {}
    while offset + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        if length < 4:  # noqa: PLR2004 - the header of an attribute
            break
        found[kind & 0x3FFF] = message[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found
