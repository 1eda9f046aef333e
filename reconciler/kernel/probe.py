"""Tries what shaping needs of the kernel, in a network namespace made for it, which ends with the socket inside it.

Trying loads modules, as shaping itself would. It takes some milliseconds.
"""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from reconciler.kernel import netns
from reconciler.kernel.apply import apply, clsact
from reconciler.kernel.bpf import Bpf
from reconciler.kernel.compile import BPF_FUNC_SKB_SET_TSTAMP
from reconciler.kernel.errors import KernelLacksError, NetlinkError, ShapingError
from reconciler.kernel.filters import place_of
from reconciler.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, RTM_NEWLINK, RTM_NEWQDISC, RTM_NEWTFILTER, Netlink
from reconciler.kernel.observe import link_index
from reconciler.model import GSO_LEAST_BYTES, HANDLE_CLSACT_FOREIGN, Splitting
from reconciler.requirements import Feature
from reconciler.steps import AttachRedirect, CreateIfb, SetRoot
from webhook.common.contract import Direction

_JIT: Final = Path("/proc/sys/net/core/bpf_jit_enable")
_LINK: Final = "lo"
_CREATE: Final = NLM_F_CREATE | NLM_F_EXCL
_SPLITTING: Final = Splitting(GSO_LEAST_BYTES, 1000)
_PASS: Final = bytes.fromhex("0600000000000000")
"""A classic BPF program that returns 0: matches nothing."""
_ABSENT: Final = frozenset({errno.ENOENT, errno.EOPNOTSUPP})


def probe() -> dict[Feature, str]:
    """What is missing, and what the kernel said. Raises ShapingError when it cannot be tried."""
    missing: dict[Feature, str] = {}
    with Netlink(netns.open_netlink_in_new) as netlink:
        index = link_index(netlink, _LINK)

        def attempt(feature: Feature, call: Callable[[], None]) -> bool:
            try:
                call()
            except KernelLacksError as error:
                cause = error.__cause__
                missing[feature] = cause.text if isinstance(cause, NetlinkError) else str(error)
            except NetlinkError as error:
                if error.errno not in _ABSENT:
                    raise ShapingError(f"cannot try {feature}: {error.text}") from error
                missing[feature] = error.text
            return feature not in missing

        attempt(Feature.IPVLAN, lambda: _ipvlan(netlink))
        has_ifb = attempt(Feature.IFB, lambda: apply(CreateIfb(), netlink, None))
        if attempt(Feature.FQ, lambda: apply(SetRoot(_LINK), netlink, None)):
            attempt(Feature.TBF, lambda: apply(SetRoot(_LINK, _SPLITTING), netlink, None))
        if attempt(Feature.CLSACT, lambda: netlink.request(clsact(index), RTM_NEWQDISC, _CREATE)):
            attempt(Feature.CLS_BPF, lambda: _classic_program(netlink, index))
            if has_ifb:  # to redirect to
                attempt(Feature.REDIRECT, lambda: apply(AttachRedirect(_LINK, HANDLE_CLSACT_FOREIGN), netlink, None))
    if not Bpf().has_helper(BPF_FUNC_SKB_SET_TSTAMP):
        missing[Feature.SET_TSTAMP] = ""
    if not _has_jit():
        missing[Feature.JIT] = ""
    return missing


def _ipvlan(netlink: Netlink) -> None:
    """Without a master, ipvlan is refused, but with a different error than an unknown kind."""
    message = ifinfmsg()
    message["attrs"] = [("IFLA_IFNAME", "probe"), ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "ipvlan")]})]
    try:
        netlink.request(message, RTM_NEWLINK, _CREATE)
    except NetlinkError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise


def _classic_program(netlink: Netlink, index: int) -> None:
    options = [("TCA_BPF_OPS_LEN", len(_PASS) // 8), ("TCA_BPF_OPS", _PASS)]
    message = place_of(index, Direction.EGRESS, 0)
    message["attrs"].append(("TCA_OPTIONS", {"attrs": options}))
    netlink.request(message, RTM_NEWTFILTER, _CREATE)


def _has_jit() -> bool:
    """Whether programs are compiled to machine code; true if unknown."""
    try:
        return _JIT.read_text(encoding="ascii").strip() != "0"
    except FileNotFoundError:
        return False
    except OSError:
        return True
