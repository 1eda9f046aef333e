"""Netlink messages of traffic control as the project needs them, where pyroute2's own lack something.

pyroute2 0.9.7 has no fq (options are ignored), and sends tables for a tbf that nothing reads. Filters are only encoded
with these, so they have what is sent and no more: `raw.py` reads filters. pyroute2 drops an attribute that it has no
name for, without a word. From the kernel's uapi/linux/pkt_sched.h and pkt_cls.h.
"""

from collections.abc import Mapping
from typing import Any, Final

from pyroute2.netlink import NLA_F_NESTED, nla
from pyroute2.netlink.rtnl.tcmsg import tcmsg

FQ_BOUNDS: Final[Mapping[str, int]] = {
    "TCA_FQ_PLIMIT": 1 << 20,
    "TCA_FQ_FLOW_PLIMIT": 1 << 20,
    "TCA_FQ_HORIZON": 3_600_000_000,
    "TCA_FQ_FLOW_MAX_RATE": 0xFFFFFFFF,
    "TCA_FQ_ORPHAN_MASK": 0xFFFF,
}
"""fq must never drop what the shaper has admitted. The shaper bounds the queue by time, so fq's own bounds are out of
reach: packets (in all and per flow), and how far ahead a stamp may be: 1 hour, in microseconds. At 1 kbit/s one GSO
packet of 64 KiB takes nine minutes. No flow has a rate of its own (bytes per second; all bits set: none). Packets from
a wire have no socket, and their flow is their hash: with the default of 10 bits, one ping in sixteen would share a flow
with one of 64 bulk flows, and wait for its next packet. 16 bits are 8 MB at most.
"""
FQ_MAX_RATE: Final = "TCA_FQ_FLOW_MAX_RATE"

SPLITTER_BYTES_PER_SECOND: Final = 4_000_000_000
"""The rate of the tbf that splits: 32 Gbit/s, which holds nothing back, as only limits far below it are split."""
_LINKLAYER_ETHERNET: Final = 1


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


def paced_bounds(flow_bytes_per_second: int) -> dict[str, int]:
    """The bounds of an fq below a tbf that splits: as FQ_BOUNDS, but no flow is faster than this.

    The low-rate threshold is out of reach, so fq always spaces packets without a stamp by their length: above the
    threshold it would hold back one of them in thirty for as long as a quantum of 3 kB takes.
    """
    return {**FQ_BOUNDS, FQ_MAX_RATE: flow_bytes_per_second, "TCA_FQ_LOW_RATE_THRESHOLD": 0xFFFFFFFF}


def splitter_parameters(size_bytes: int) -> dict[str, int]:
    """The parameters of a tbf that splits packets above this size. Packets above its burst never pass (tbf_dequeue).

    The burst is a time, in units of 64 ns (PSCHED_SHIFT). `limit` is for the default child qdisc, which ours replaces;
    the size is read back from it, as the burst is rounded.
    """
    burst = -(-size_bytes * 10**9 // SPLITTER_BYTES_PER_SECOND // 64)
    return {"linklayer": _LINKLAYER_ETHERNET, "rate": SPLITTER_BYTES_PER_SECOND, "limit": size_bytes, "buffer": burst}


class _TbfOptions(nla):  # type: ignore[misc] # pyroute2 ships no types
    """TCA_OPTIONS of tbf. As the link layer is given, the rate tables that older kernels want are not needed."""

    nla_flags = NLA_F_NESTED
    nla_map = (("TCA_TBF_UNSPEC", "none"), ("TCA_TBF_PARMS", "parms"))

    class parms(nla):  # type: ignore[misc] # noqa: N801 - pyroute2 finds it by this name
        fields = (
            ("cell_log", "B"),
            ("linklayer", "B"),
            ("overhead", "H"),
            ("cell_align", "h"),
            ("mpu", "H"),
            ("rate", "I"),
            ("peak_cell_log", "B"),
            ("peak_linklayer", "B"),
            ("peak_overhead", "H"),
            ("peak_cell_align", "h"),
            ("peak_mpu", "H"),
            ("peak", "I"),
            ("limit", "I"),
            ("buffer", "I"),
            ("mtu", "I"),
        )


class _BpfOptions(nla):  # type: ignore[misc] # pyroute2 ships no types
    """TCA_OPTIONS of a bpf filter."""

    nla_flags = NLA_F_NESTED
    nla_map = (
        (3, "TCA_BPF_CLASSID", "uint32"),
        (4, "TCA_BPF_OPS_LEN", "uint16"),
        (5, "TCA_BPF_OPS", "cdata"),
        (6, "TCA_BPF_FD", "uint32"),
        (7, "TCA_BPF_NAME", "asciiz"),
        (8, "TCA_BPF_FLAGS", "uint32"),
    )


class _MirredOptions(nla):  # type: ignore[misc] # pyroute2 ships no types
    nla_flags = NLA_F_NESTED
    nla_map = ((2, "TCA_MIRRED_PARMS", "parms"),)

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
    nla_map = ((1, "TCA_ACT_KIND", "asciiz"), (2, "TCA_ACT_OPTIONS", "mirred"))
    mirred = _MirredOptions


class _Actions(nla):  # type: ignore[misc] # pyroute2 ships no types
    nla_flags = NLA_F_NESTED
    nla_map = ((1, "TCA_ACT_PRIO_1", "action"),)
    action = _Action


class _MatchallOptions(nla):  # type: ignore[misc] # pyroute2 ships no types
    """TCA_OPTIONS of a matchall filter, with one action."""

    nla_flags = NLA_F_NESTED
    nla_map = ((2, "TCA_MATCHALL_ACT", "actions"),)
    actions = _Actions


_OPTIONS: Final = {"fq": FqOptions, "tbf": _TbfOptions, "bpf": _BpfOptions, "matchall": _MatchallOptions}


class TrafficControlMessage(tcmsg):  # type: ignore[misc] # pyroute2 ships no types
    """A qdisc or filter message with the options above; options of every other kind are bytes."""

    nla_map = (
        (0, "TCA_UNSPEC", "none"),
        (1, "TCA_KIND", "asciiz"),
        (2, "TCA_OPTIONS", "options_of_kind"),
        (11, "TCA_CHAIN", "uint32"),
    )

    @staticmethod
    def options_of_kind(message: Any, *_: Any, **__: Any) -> Any:
        """The class of TCA_OPTIONS, which depends on the kind before it."""
        return _OPTIONS.get(message.get_attr("TCA_KIND"), message.hex)
