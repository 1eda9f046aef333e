"""Netlink messages of traffic control as the project needs them, where pyroute2's own lack something.

pyroute2 0.9.7 has no fq (options are ignored), and decodes of a bpf filter only the old attributes. From the kernel's
uapi/linux/pkt_sched.h and pkt_cls.h.
"""

import struct
from collections.abc import Mapping
from typing import Any, Final

from pyroute2.netlink import NLA_F_NESTED, nla
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.tcmsg import tcmsg

FQ_BOUNDS: Final[Mapping[str, int]] = {
    "TCA_FQ_PLIMIT": 1 << 20,
    "TCA_FQ_FLOW_PLIMIT": 1 << 20,
    "TCA_FQ_HORIZON": 3_600_000_000,
    "TCA_FQ_FLOW_MAX_RATE": 0xFFFFFFFF,
}
"""fq must never drop what the shaper has admitted. The shaper bounds the queue by time, so fq's own bounds are out of
reach: packets (that of all and that of one flow), and how far a stamp may lie ahead: 1 hour, in microseconds. At
1 kbit/s one GSO packet of 64 KiB takes nine minutes. No flow has a rate of its own (bytes per second; all bits: none).
"""
LINK_ATTRIBUTES: Final = 16 + 16
"""Where the attributes of a link's message begin: after the headers of netlink and of the link (struct ifinfomsg)."""
TC_ATTRIBUTES: Final = 16 + 20
"""Likewise of a qdisc's or filter's (struct tcmsg)."""
TC_ACT_STOLEN: Final = 4
MIRRED_EGRESS_REDIRECT: Final = 1
"""tc_mirred(8): a packet leaves by another interface, and no copy of it stays."""


class FqOptions(nla):  # type: ignore[misc] # pyroute2 ships no types
    """TCA_OPTIONS of fq."""

    nla_flags = NLA_F_NESTED
    nla_map = (
        ("TCA_FQ_UNSPEC", "none"),
        ("TCA_FQ_PLIMIT", "uint32"),
        ("TCA_FQ_FLOW_PLIMIT", "uint32"),
        ("TCA_FQ_QUANTUM", "uint32"),
        ("TCA_FQ_INITIAL_QUANTUM", "uint32"),
        ("TCA_FQ_RATE_ENABLE", "uint32"),
        ("TCA_FQ_FLOW_DEFAULT_RATE", "uint32"),
        ("TCA_FQ_FLOW_MAX_RATE", "uint32"),
        ("TCA_FQ_BUCKETS_LOG", "uint32"),
        ("TCA_FQ_FLOW_REFILL_DELAY", "uint32"),
        ("TCA_FQ_ORPHAN_MASK", "uint32"),
        ("TCA_FQ_LOW_RATE_THRESHOLD", "uint32"),
        ("TCA_FQ_CE_THRESHOLD", "uint32"),
        ("TCA_FQ_TIMER_SLACK", "uint32"),
        ("TCA_FQ_HORIZON", "uint32"),
        ("TCA_FQ_HORIZON_DROP", "uint8"),
    )


class BpfOptions(nla):  # type: ignore[misc] # pyroute2 ships no types
    """TCA_OPTIONS of a bpf filter."""

    nla_flags = NLA_F_NESTED
    nla_map = (
        ("TCA_BPF_UNSPEC", "none"),
        ("TCA_BPF_ACT", "hex"),
        ("TCA_BPF_POLICE", "hex"),
        ("TCA_BPF_CLASSID", "uint32"),
        ("TCA_BPF_OPS_LEN", "uint16"),
        ("TCA_BPF_OPS", "cdata"),
        ("TCA_BPF_FD", "uint32"),
        ("TCA_BPF_NAME", "asciiz"),
        ("TCA_BPF_FLAGS", "uint32"),
        ("TCA_BPF_FLAGS_GEN", "uint32"),
        ("TCA_BPF_TAG", "hex"),
        ("TCA_BPF_ID", "uint32"),
    )


class _MirredOptions(nla):  # type: ignore[misc] # pyroute2 ships no types
    nla_flags = NLA_F_NESTED
    nla_map = (("TCA_MIRRED_UNSPEC", "none"), ("TCA_MIRRED_TM", "hex"), ("TCA_MIRRED_PARMS", "parms"))

    class parms(nla):  # type: ignore[misc] # noqa: N801 - pyroute2 finds it by this name
        fields = (
            ("index", "I"),
            ("capab", "I"),
            ("action", "i"),
            ("refcnt", "i"),
            ("bindcnt", "i"),
            ("eaction", "i"),
            ("ifindex", "I"),
        )


class _Action(nla):  # type: ignore[misc] # pyroute2 ships no types
    nla_flags = NLA_F_NESTED
    nla_map = (("TCA_ACT_UNSPEC", "none"), ("TCA_ACT_KIND", "asciiz"), ("TCA_ACT_OPTIONS", "options"))

    @staticmethod
    def options(action: Any, *_: Any, **__: Any) -> Any:
        return _MirredOptions if action.get_attr("TCA_ACT_KIND") == "mirred" else action.hex


class _Actions(nla):  # type: ignore[misc] # pyroute2 ships no types
    nla_flags = NLA_F_NESTED
    nla_map = (("TCA_ACT_PRIO_0", "none"), ("TCA_ACT_PRIO_1", "action"))
    action = _Action


class MatchallOptions(nla):  # type: ignore[misc] # pyroute2 ships no types
    """TCA_OPTIONS of a matchall filter, with at most one action that is decoded."""

    nla_flags = NLA_F_NESTED
    nla_map = (
        ("TCA_MATCHALL_UNSPEC", "none"),
        ("TCA_MATCHALL_CLASSID", "uint32"),
        ("TCA_MATCHALL_ACT", "actions"),
        ("TCA_MATCHALL_FLAGS", "uint32"),
    )
    actions = _Actions


_OPTIONS: Final = {"fq": FqOptions, "bpf": BpfOptions, "matchall": MatchallOptions}


class TrafficControlMessage(tcmsg):  # type: ignore[misc] # pyroute2 ships no types
    """A qdisc or filter message whose options are those above, and bytes for every other kind."""

    nla_map = (
        ("TCA_UNSPEC", "none"),
        ("TCA_KIND", "asciiz"),
        ("TCA_OPTIONS", "options_of_kind"),
    )

    @staticmethod
    def options_of_kind(message: Any, *_: Any, **__: Any) -> Any:
        """The class of TCA_OPTIONS, which depends on the kind before it."""
        return _OPTIONS.get(message.get_attr("TCA_KIND"), message.hex)


class RawLink(ifinfmsg):  # type: ignore[misc] # pyroute2 ships no types
    """A link whose attributes are not decoded: that takes most of the time, and a Pod may have thousands of links."""

    nla_map = ()


class RawTrafficControl(tcmsg):  # type: ignore[misc] # pyroute2 ships no types
    """A qdisc or filter, likewise."""

    nla_map = ()


def raw_attributes(message: bytes, offset: int) -> dict[int, bytes]:
    """The attributes that follow a message's fixed part, by number (rtnetlink(7))."""
    found = {}
    while offset + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        if length < 4:  # noqa: PLR2004 - the header of an attribute
            break
        found[kind & 0x3FFF] = message[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found
