"""The only place that changes the kernel's network configuration: one function for each step."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from reconciler.kernel.attributes import FQ_BOUNDS, TrafficControlMessage, paced_bounds, splitter_parameters
from reconciler.kernel.errors import KernelLacksError, NetlinkError, ShapingError, StepFailedError
from reconciler.kernel.filters import place_of
from reconciler.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    RTM_DELLINK,
    RTM_DELQDISC,
    RTM_DELTFILTER,
    RTM_NEWLINK,
    RTM_NEWQDISC,
    RTM_NEWTFILTER,
    Netlink,
)
from reconciler.kernel.observe import BELOW_SPLITTER, TC_H_CLSACT, TC_H_ROOT, link_index
from reconciler.kernel.raw import IFF_UP, MIRRED_EGRESS_REDIRECT, TC_ACT_STOLEN
from reconciler.model import FQ_HANDLE, IFB_NAME, SPLITTER_HANDLE
from reconciler.steps import (
    AttachRedirect,
    AttachShaper,
    ClearLimit,
    CreateIfb,
    DeleteClsact,
    DeleteIfb,
    DeleteRoot,
    DetachFilter,
    SetGsoMaxBytes,
    SetRoot,
    SetUp,
    Step,
    WriteLimit,
)
from webhook.common.contract import Direction

_CLSACT_HANDLE: Final = 0xFFFF0000
_ADDR_GEN_MODE_NONE: Final = 1
_BPF_DIRECT_ACTION: Final = 1

_LACKING: Final = {
    SetRoot: "CONFIG_NET_SCH_FQ and CONFIG_NET_SCH_TBF (modules sch_fq, sch_tbf)",
    AttachShaper: "CONFIG_NET_CLS_BPF (module cls_bpf)",
    AttachRedirect: "CONFIG_NET_CLS_MATCHALL and CONFIG_NET_ACT_MIRRED (modules cls_matchall, act_mirred)",
    CreateIfb: "CONFIG_IFB (module ifb)",
}
_LACKING_CLSACT: Final = "CONFIG_NET_SCH_INGRESS (module sch_ingress)"
_UNKNOWN: Final = frozenset({errno.ENOENT, errno.EOPNOTSUPP})
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.EINVAL})


@dataclass(frozen=True, slots=True)
class AttachedProgram:
    """The program as a filter refers to it: a descriptor of this process, and the filter's name."""

    descriptor: int
    filter_name: str


def apply(step: Step, netlink: Netlink, program: AttachedProgram | None) -> None:
    """Apply one step in the netns of `netlink`, but no steps on the limits map.

    Deleting what is not there succeeds. Raises StepFailedError, or KernelLacksError if the kernel lacks the feature.
    """
    try:
        _apply(step, netlink, program)
    except NetlinkError as error:
        if error.errno in _UNKNOWN and type(step) in _LACKING:
            raise KernelLacksError(_LACKING[type(step)], f"{step}: {error.text}") from error
        raise StepFailedError(step, error.text) from error


def _apply(  # noqa: C901 - one case per step
    step: Step, netlink: Netlink, program: AttachedProgram | None
) -> None:
    match step:
        case CreateIfb():
            _create_ifb(netlink)
        case DeleteIfb(link=name):
            _ignoring_absence(netlink, _link(netlink, name), RTM_DELLINK)
            netlink.link_indexes.pop(name, None)
        case SetUp(link=name):
            message = _link(netlink, name)
            message["flags"] = message["change"] = IFF_UP
            netlink.request(message, RTM_NEWLINK)
        case SetGsoMaxBytes(link=name, size_bytes=size_bytes):
            message = _link(netlink, name)
            message["attrs"] = [("IFLA_GSO_MAX_SIZE", size_bytes)]
            netlink.request(message, RTM_NEWLINK)
        case SetRoot(link=name):
            _set_root(netlink, link_index(netlink, name), step)
        case DeleteRoot(link=name, handle=handle):
            message = _traffic_control(link_index(netlink, name), TC_H_ROOT, handle)
            _ignoring_absence(netlink, message, RTM_DELQDISC)
        case DeleteClsact(link=name):
            _ignoring_absence(netlink, clsact(link_index(netlink, name)), RTM_DELQDISC)
        case AttachShaper(link=name, handle=handle, class_id=class_id):
            if program is None:
                raise StepFailedError(step, "no program is loaded")
            message = _shaper(link_index(netlink, name), handle, class_id, program)
            _attach(netlink, step, message, NLM_F_CREATE | NLM_F_REPLACE)
        case AttachRedirect(link=name, handle=handle):
            message = _redirect(link_index(netlink, name), handle, link_index(netlink, IFB_NAME))
            _attach(netlink, step, message, NLM_F_CREATE | NLM_F_EXCL)
        case DetachFilter(link=name, hook=hook, handle=handle):
            _ignoring_absence(netlink, place_of(link_index(netlink, name), hook, handle), RTM_DELTFILTER)
        case WriteLimit() | ClearLimit():
            raise ShapingError(f"{step} is not a step of the network namespace")


def _attach(netlink: Netlink, step: AttachShaper | AttachRedirect, message: Any, flags: int) -> None:
    """Attach a filter; if the clsact is made with it, both are there afterwards or neither is."""
    if isinstance(step, AttachRedirect) and step.replacing:
        detaching = place_of(message["index"], Direction.INGRESS, step.handle)
        _, failed = netlink.request_all((detaching, RTM_DELTFILTER, 0), (message, RTM_NEWTFILTER, flags))
        if failed is not None:
            raise failed
        return
    if not step.with_clsact:
        netlink.request(message, RTM_NEWTFILTER, flags)
        return
    index = message["index"]
    no_clsact, no_filter = netlink.request_all(
        (clsact(index), RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL), (message, RTM_NEWTFILTER, flags)
    )
    if no_clsact is None and no_filter is not None:
        _ignoring_absence(netlink, clsact(index), RTM_DELQDISC)
    if no_clsact is not None and no_filter is None:
        # A foreign clsact was made at this moment; our filter's handle would mark it as ours.
        hook = Direction.EGRESS if isinstance(step, AttachShaper) else Direction.INGRESS
        _ignoring_absence(netlink, place_of(index, hook, step.handle), RTM_DELTFILTER)
    if no_clsact is not None and no_clsact.errno in _UNKNOWN:
        raise KernelLacksError(_LACKING_CLSACT, f"{step}: {no_clsact.text}") from no_clsact
    for error in (no_clsact, no_filter):
        if error is not None:
            raise error


def _link(netlink: Netlink, name: str) -> Any:
    message = ifinfmsg()
    message["index"] = link_index(netlink, name)
    return message


def _ignoring_absence(netlink: Netlink, message: Any, message_type: int) -> None:
    try:
        netlink.request(message, message_type)
    except NetlinkError as error:
        if error.errno not in _ABSENT:
            raise


def _create_ifb(netlink: Netlink) -> None:
    """Make the ifb, down; the same system call keeps it from taking an fe80 address and route when it comes up."""
    message = ifinfmsg()
    message["attrs"] = [
        ("IFLA_IFNAME", IFB_NAME),
        ("IFLA_TXQLEN", 1000),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "ifb")]}),
    ]
    inet6 = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE)]}
    told = ifinfmsg()
    told["attrs"] = [("IFLA_IFNAME", IFB_NAME), ("IFLA_AF_SPEC", {"attrs": [("AF_INET6", inet6)]})]
    not_made, not_told = netlink.request_all((message, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL), (told, RTM_NEWLINK, 0))
    netlink.link_indexes.pop(IFB_NAME, None)
    if not_made is not None and not_made.errno == errno.EEXIST:
        raise StepFailedError(CreateIfb(), f"{IFB_NAME} exists already") from not_made
    if not_made is not None:
        raise not_made
    if not_told is not None and not_told.errno != errno.EAFNOSUPPORT:  # no IPv6, no address
        raise not_told


def _traffic_control(index: int, parent: int, handle: int, kind: str | None = None) -> TrafficControlMessage:
    message = TrafficControlMessage()
    message["index"] = index
    message["parent"] = parent
    message["handle"] = handle
    message["attrs"] = [("TCA_KIND", kind)] if kind else []
    return message


def clsact(index: int) -> TrafficControlMessage:
    """The message that refers to a link's clsact, whether it exists or not."""
    return _traffic_control(index, TC_H_CLSACT, _CLSACT_HANDLE, "clsact")


def _set_root(netlink: Netlink, index: int, step: SetRoot) -> None:
    """Set both qdiscs in one system call: between the two, packets would leave regardless of their stamps."""
    flags = NLM_F_CREATE | NLM_F_REPLACE
    if step.splitting is None:
        fq = _qdisc(index, TC_H_ROOT, FQ_HANDLE, "fq", FQ_BOUNDS)
        netlink.request(fq, RTM_NEWQDISC, flags)
        return
    parameters = {"TCA_TBF_PARMS": splitter_parameters(step.splitting.size_bytes)}
    tbf = _qdisc(index, TC_H_ROOT, SPLITTER_HANDLE, "tbf", parameters)
    fq = _qdisc(index, *BELOW_SPLITTER, "fq", paced_bounds(step.splitting.flow_bytes_per_second))
    removed = [(_traffic_control(index, TC_H_ROOT, SPLITTER_HANDLE), RTM_DELQDISC, 0)] if step.afresh else []
    *_, no_tbf, no_fq = netlink.request_all(*removed, (tbf, RTM_NEWQDISC, flags), (fq, RTM_NEWQDISC, flags))
    for failed in (no_tbf, no_fq):
        if failed is not None:
            raise failed


def _qdisc(index: int, parent: int, handle: int, kind: str, options: Mapping[str, Any]) -> TrafficControlMessage:
    message = _traffic_control(index, parent, handle, kind)
    message["attrs"].append(("TCA_OPTIONS", {"attrs": list(options.items())}))
    return message


def _shaper(index: int, handle: int, class_id: int, program: AttachedProgram) -> TrafficControlMessage:
    message = place_of(index, Direction.EGRESS, handle)
    options = [
        ("TCA_BPF_CLASSID", class_id),
        ("TCA_BPF_FD", program.descriptor),
        ("TCA_BPF_NAME", program.filter_name),
        ("TCA_BPF_FLAGS", _BPF_DIRECT_ACTION),
    ]
    message["attrs"].append(("TCA_OPTIONS", {"attrs": options}))
    return message


def _redirect(index: int, handle: int, ifb_index: int) -> TrafficControlMessage:
    message = place_of(index, Direction.INGRESS, handle)
    parameters = {"action": TC_ACT_STOLEN, "eaction": MIRRED_EGRESS_REDIRECT, "ifindex": ifb_index}
    mirred = [("TCA_ACT_KIND", "mirred"), ("TCA_ACT_OPTIONS", {"attrs": [("TCA_MIRRED_PARMS", parameters)]})]
    actions = [("TCA_ACT_PRIO_1", {"attrs": mirred})]
    message["attrs"].append(("TCA_OPTIONS", {"attrs": [("TCA_MATCHALL_ACT", {"attrs": actions})]}))
    return message
