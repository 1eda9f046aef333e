"""Netlink messages as bytes: only what is needed to skip an object is read. Pure.

A Pod with NET_ADMIN may hold a hundred thousand objects; pyroute2 takes some 40 us and 3 KiB to decode each. These
functions never fail, whatever the bytes are: a message that is cut short belongs to no link, and has no attributes.
"""

import struct
import sys
from collections.abc import Mapping
from typing import Final, NamedTuple

from reconciler.model import OUR_HANDLES, Filter
from webhook.common.contract import Direction

LINK_ATTRIBUTES: Final = 16 + 16
"""Where the attributes of a link's message begin: after the headers of netlink and of the link (struct ifinfomsg)."""
TC_ATTRIBUTES: Final = 16 + 20
"""The same for a qdisc's or filter's message (struct tcmsg)."""
MIRRED_EGRESS_REDIRECT: Final = 1
"""tc_mirred(8): a packet leaves by another interface, and no copy of it stays."""
TC_ACT_STOLEN: Final = 4
ETH_P_ALL_BIG_ENDIAN: Final = 0x0300 if sys.byteorder == "little" else 0x0003
IFLA_IFNAME: Final = 3
IFLA_MTU: Final = 4
IFLA_LINK: Final = 5
IFLA_LINKINFO: Final = 18
IFLA_STATS64: Final = 23
IFLA_GSO_MAX_SIZE: Final = 41
IFLA_TSO_MAX_SIZE: Final = 59
IFLA_INFO_KIND: Final = 1
IFLA_INFO_DATA: Final = 2
IFLA_IPVLAN_MODE: Final = 1
IFF_UP: Final = 1
TCA_KIND: Final = 1
TCA_STATS: Final = 3
_TCA_OPTIONS: Final = 2
_TCA_CHAIN: Final = 11
_BPF_CLASSID: Final = 3
_BPF_NAME: Final = 7
_BPF_ID: Final = 11
_MATCHALL_ACT: Final = 2
_FIRST_ACTION: Final = 1
_ACT_KIND: Final = 1
_ACT_OPTIONS: Final = 2
_MIRRED_PARMS: Final = 2
_ATTRIBUTE: Final = struct.Struct("=HH")
_LINK: Final = struct.Struct("=4xiI")
"""Index and flags in struct ifinfomsg, after family and type."""
_TCMSG: Final = struct.Struct("=4xiIII")
_MIRRED: Final = struct.Struct("=IIiiiiI")
"""struct tc_mirred: index, capab, action, refcnt, bindcnt, eaction, ifindex."""


class TrafficControl(NamedTuple):
    """The fixed part of a qdisc's or filter's message, with the index of its link.

    `info` is a filter's: its priority in the upper 16 bits, a protocol in the lower ones.
    """

    link: int
    handle: int
    parent: int
    info: int


def traffic_control(message: bytes) -> TrafficControl:
    """The fixed part of a qdisc's or filter's message."""
    return TrafficControl(*_TCMSG.unpack_from(message.ljust(TC_ATTRIBUTES, b"\0"), 16))


def link_index_of(message: bytes) -> int:
    """The index of a link, by its message."""
    index, _ = _LINK.unpack_from(message.ljust(LINK_ATTRIBUTES, b"\0"), 16)
    return int(index)


def link_is_up(message: bytes) -> bool:
    """Whether a link is up, by its message."""
    _, flags = _LINK.unpack_from(message.ljust(LINK_ATTRIBUTES, b"\0"), 16)
    return bool(flags & IFF_UP)


def raw_attributes(message: bytes, offset: int) -> dict[int, bytes]:
    """The attributes that follow a message's fixed part, by number (rtnetlink(7))."""
    found = {}
    while offset + 4 <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, offset)
        if length < 4:  # noqa: PLR2004 - the header of an attribute
            break
        found[kind & 0x3FFF] = message[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def number(value: bytes | None) -> int | None:
    """An attribute's value as the kernel writes a number, in the machine's byte order; None without one."""
    return None if value is None else int.from_bytes(value, sys.byteorder)


def text(value: bytes) -> str:
    """A name that a Pod may have given, of any bytes, without characters that a terminal would obey.

    No two names become the same: a backslash becomes two, and each byte that is not shown as it is, its escape.
    """
    shown = value.rstrip(b"\0").replace(b"\\", rb"\\").decode(errors="backslashreplace")
    return shown if shown.isprintable() else "".join(map(_printable, shown))


def _printable(character: str) -> str:
    return character if character.isprintable() else "".join(f"\\x{byte:02x}" for byte in character.encode())


def filter_of(hook: Direction, message: bytes, names: Mapping[int, str]) -> Filter:
    """A filter at a hook. Its options are read only if it has one of our handles. `names`: of links, by index."""
    head = traffic_control(message)
    held = raw_attributes(message, TC_ATTRIBUTES)
    kind, chain, priority = text(held.get(TCA_KIND, b"")), number(held.get(_TCA_CHAIN)) or 0, head.info >> 16
    if head.info & 0xFFFF != ETH_P_ALL_BIG_ENDIAN:
        # It does not see all packets, and like one of another kind leaves ours no place at its priority
        # (tcf_chain_tp_find).
        kind += " of one protocol"
    options = raw_attributes(held.get(_TCA_OPTIONS, b""), 0) if head.handle in OUR_HANDLES else {}
    if kind == "bpf":
        return Filter(
            hook,
            kind,
            priority,
            head.handle,
            name=text(options.get(_BPF_NAME, b"")),
            program_id=number(options.get(_BPF_ID)),
            class_id=number(options.get(_BPF_CLASSID)),
            chain=chain,
        )
    target = _redirect_target(options) if kind == "matchall" else None
    return Filter(hook, kind, priority, head.handle, redirects_to=names.get(target) if target else None, chain=chain)


def _redirect_target(matchall: Mapping[int, bytes]) -> int | None:
    """The index of the link that a matchall's first action redirects to; None for one that does anything else."""
    action = raw_attributes(raw_attributes(matchall.get(_MATCHALL_ACT, b""), 0).get(_FIRST_ACTION, b""), 0)
    parameters = raw_attributes(action.get(_ACT_OPTIONS, b""), 0).get(_MIRRED_PARMS, b"")
    if text(action.get(_ACT_KIND, b"")) != "mirred" or len(parameters) < _MIRRED.size:
        return None
    _, _, verdict, _, _, what, index = _MIRRED.unpack_from(parameters)
    return int(index) if (verdict, what) == (TC_ACT_STOLEN, MIRRED_EGRESS_REDIRECT) else None
