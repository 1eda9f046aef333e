"""What a network namespace holds: links, root qdiscs and filters, as the nouns of `reconciler.model`."""

import errno
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from reconciler.kernel.attributes import (
    FQ_BOUNDS,
    FQ_MAX_RATE,
    LINK_ATTRIBUTES,
    MIRRED_EGRESS_REDIRECT,
    TC_ACT_STOLEN,
    TC_ATTRIBUTES,
    RawLink,
    RawTrafficControl,
    TrafficControlMessage,
    paced_bounds,
    raw_attributes,
    splitter_parameters,
)
from reconciler.kernel.errors import NetlinkError
from reconciler.kernel.netlink import Netlink
from reconciler.model import (
    COORDINATOR_VETH,
    GSO_DEFAULT_BYTES,
    IFB_NAME,
    SHARED_CLSACT,
    SPLITTER_HANDLE,
    Filter,
    Link,
    ObservedLink,
    ObservedShaping,
    Qdisc,
    Splitting,
)
from webhook.contract import Direction

RTM_GETLINK: Final = 18
RTM_GETQDISC: Final = 38
RTM_GETTFILTER: Final = 46
TC_H_ROOT: Final = 0xFFFFFFFF
TC_H_CLSACT: Final = 0xFFFFFFF1
BELOW_SPLITTER: Final = (SPLITTER_HANDLE | 1, 0x1BD4_0000)
"""Parent and handle of the fq below our tbf, whose one class is 1."""
PARENTS: Final = {Direction.INGRESS: 0xFFFFFFF2, Direction.EGRESS: 0xFFFFFFF3}
_IFF_UP: Final = 1
_IFLA_IFNAME: Final = 3
_IFLA_LINKINFO: Final = 18
_IFLA_INFO_KIND: Final = 1
_IFLA_INFO_DATA: Final = 2
_IFLA_IPVLAN_MODE: Final = 1
MOST_LINKS: Final = 64
_IPVLAN: Final = "ipvlan"
_IPVTAP: Final = "ipvtap"
"""An ipvlan link with a character device beside it: as any other, while nobody reads that."""
_KINDS: Final = frozenset({_IPVLAN, "veth", "ifb"})
_NAMES: Final = frozenset({IFB_NAME, COORDINATOR_VETH})
_IPVLAN_MODES: Final = {0: "l2", 1: "l3", 2: "l3s"}
_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP})
_BLOCKS: Final = frozenset({13, 14})
"""TCA_INGRESS_BLOCK and TCA_EGRESS_BLOCK, which a qdisc has whose filters are shared with others."""
_CLASSIFIERS: Final = frozenset({"clsact", "ingress"})


def observe_netns(netlink: Netlink) -> ObservedShaping:
    """The netns' links that may matter, with what traffic control holds on them; no limits. Raises NetlinkError.

    Those are its ipvlan, veth and ifb links, and whatever has the name of one of ours: at most `MOST_LINKS` of those
    kinds, ipvlan before others and the oldest of each, so that nobody can keep us busy with thousands of them.
    """
    relevant, unseen = _relevant(_dump_links(netlink))
    links = {message["index"]: _link(message, name, kind) for message, name, kind in relevant}
    netlink.link_indexes = {link.name: index for index, link in links.items()}
    names = {index: link.name for index, link in links.items()}
    roots: dict[int, Any] = {}
    paced: dict[int, Any] = {}
    classifiers: dict[int, str] = {}
    for raw in netlink.dump(RawTrafficControl(), RTM_GETQDISC):
        if raw["index"] not in links:
            continue
        message = _decoded(raw, TrafficControlMessage)
        kind = message.get_attr("TCA_KIND")
        if kind in _CLASSIFIERS:
            is_shared = not _BLOCKS.isdisjoint(raw_attributes(raw.data, TC_ATTRIBUTES))
            classifiers[message["index"]] = SHARED_CLSACT if is_shared and kind == "clsact" else kind
        elif message["parent"] == TC_H_ROOT:
            roots[message["index"]] = message
        elif (message["parent"], message["handle"]) == BELOW_SPLITTER:
            paced[message["index"]] = message
    observed = (
        ObservedLink(
            link,
            _root(roots.get(index), paced.get(index)),
            classifiers.get(index),
            _filters(netlink, index, names) if classifiers.get(index) == "clsact" else (),
        )
        for index, link in links.items()
    )
    return ObservedShaping(tuple(observed), unseen_ipvlan=unseen)


def link_index(netlink: Netlink, name: str) -> int:
    """The index of a link, from the last list if it is there, else from a new one. Raises NetlinkError."""
    if name not in netlink.link_indexes:
        listed = _dump_links(netlink)
        netlink.link_indexes = {name_and_kind(message)[0]: message["index"] for message in listed}
    if name not in netlink.link_indexes:
        raise NetlinkError(errno.ENODEV, f"no interface {name}")
    return netlink.link_indexes[name]


def _dump_links(netlink: Netlink) -> list[Any]:
    return netlink.dump(RawLink(), RTM_GETLINK)


def name_and_kind(message: Any) -> tuple[str, str]:
    """The name of a link as it is known everywhere here, whatever its bytes are, and its kind."""
    held = raw_attributes(message.data, LINK_ATTRIBUTES)
    kind = _text(_info(held).get(_IFLA_INFO_KIND, b""))
    return _text(held.get(_IFLA_IFNAME, b"")), _IPVLAN if kind == _IPVTAP else kind


def _mode(message: Any) -> str | None:
    """Of an ipvlan link."""
    info = _info(raw_attributes(message.data, LINK_ATTRIBUTES))
    value = raw_attributes(info.get(_IFLA_INFO_DATA, b""), 0).get(_IFLA_IPVLAN_MODE, b"")
    return _IPVLAN_MODES.get(int.from_bytes(value[:2], sys.byteorder)) if value else None


def _info(link: Mapping[int, bytes]) -> dict[int, bytes]:
    """What a link's attributes say of its kind."""
    return raw_attributes(link.get(_IFLA_LINKINFO, b""), 0)


def _text(value: str | bytes | None) -> str:
    """A name that a Pod may have given, of any bytes. No two names become the same, so a backslash becomes two."""
    if not isinstance(value, bytes):
        return value or ""
    return value.rstrip(b"\0").replace(b"\\", rb"\\").decode(errors="backslashreplace")


def _relevant(messages: Iterable[Any]) -> tuple[list[tuple[Any, str, str]], int]:
    """With their names and kinds, in the order of their indexes; and how many ipvlan links there are beyond the bound.

    Of more than there may be, ipvlan comes before others, as it is what is limited.
    """
    links = [(message, *name_and_kind(message)) for message in sorted(messages, key=lambda message: message["index"])]
    counted = sorted((kind != _IPVLAN, number) for number, (_, _, kind) in enumerate(links) if kind in _KINDS)
    kept = {number for _, number in counted[:MOST_LINKS]}
    seen = [each for number, each in enumerate(links) if each[1] in _NAMES or number in kept]
    return seen, sum(not is_other for is_other, _ in counted[MOST_LINKS:])


def _decoded(raw: Any, kind: type[Any]) -> Any:
    message = kind(raw.data)
    message.decode()
    return message


def _link(raw: Any, name: str, kind: str) -> Link:
    message = _decoded(raw, ifinfmsg)
    return Link(
        name,
        kind,
        _mode(raw) if kind == _IPVLAN else None,
        is_up=bool(message["flags"] & _IFF_UP),
        gso_max_bytes=message.get_attr("IFLA_GSO_MAX_SIZE") or GSO_DEFAULT_BYTES,
        tso_max_bytes=message.get_attr("IFLA_TSO_MAX_SIZE") or GSO_DEFAULT_BYTES,  # told since Linux 5.19
        mtu=message.get_attr("IFLA_MTU") or 0,
    )


def _root(message: Any, below: Any) -> Qdisc:
    """A root qdisc, and what is in the place of the fq below it if it is ours and splits."""
    if message is None:
        return Qdisc("noqueue", 0)
    root = Qdisc(message.get_attr("TCA_KIND"), message["handle"])
    options = message.get_attr("TCA_OPTIONS")
    if not root.is_ours or not options:
        return root
    if root.kind == "fq":
        return replace(root, is_intact=_has_bounds(options, FQ_BOUNDS))
    parameters = options.get_attr("TCA_TBF_PARMS")
    wanted = splitter_parameters(parameters["limit"])
    fq = below.get_attr("TCA_OPTIONS") if below is not None and below.get_attr("TCA_KIND") == "fq" else None
    if not fq or any(parameters[name] != value for name, value in wanted.items()):
        return replace(root, is_intact=False)
    rate = fq.get_attr(FQ_MAX_RATE)
    return replace(root, is_intact=_has_bounds(fq, paced_bounds(rate)), splitting=Splitting(parameters["limit"], rate))


def _has_bounds(options: Any, bounds: Mapping[str, int]) -> bool:
    """Whether an fq has the bounds that we give it. What a kernel does not tell, it does not have (horizon: 5.8)."""
    return all(options.get_attr(name) in {None, bound} for name, bound in bounds.items())


def _filters(netlink: Netlink, index: int, names: dict[int, str]) -> tuple[Filter, ...]:
    found = []
    for hook, parent in PARENTS.items():
        request = TrafficControlMessage()
        request["index"] = index
        request["parent"] = parent
        try:
            messages = netlink.dump(request, RTM_GETTFILTER)
        except NetlinkError as error:
            if error.errno not in _GONE:
                raise
            # The clsact went between two dumps: what it held went with it.
            continue
        found += [_filter(hook, message, names) for message in messages if message["handle"]]
    return tuple(found)


def _filter(hook: Direction, message: Any, names: dict[int, str]) -> Filter:
    kind = message.get_attr("TCA_KIND")
    priority = message["info"] >> 16
    options = message.get_attr("TCA_OPTIONS")
    if kind == "bpf" and options:
        return Filter(
            hook,
            kind,
            priority,
            message["handle"],
            name=_text(options.get_attr("TCA_BPF_NAME")),
            program_id=options.get_attr("TCA_BPF_ID"),
            class_id=options.get_attr("TCA_BPF_CLASSID"),
        )
    target = _redirect_target(options) if kind == "matchall" and options else None
    return Filter(hook, kind, priority, message["handle"], redirects_to=names.get(target) if target else None)


def _redirect_target(options: Any) -> int | None:
    """The index of the link that a matchall's only action redirects to; None for one that does anything else."""
    actions = options.get_attr("TCA_MATCHALL_ACT")
    action = actions.get_attr("TCA_ACT_PRIO_1") if actions else None
    if not action or action.get_attr("TCA_ACT_KIND") != "mirred":
        return None
    parameters = action.get_attr("TCA_ACT_OPTIONS").get_attr("TCA_MIRRED_PARMS")
    if not parameters or (parameters["action"], parameters["eaction"]) != (TC_ACT_STOLEN, MIRRED_EGRESS_REDIRECT):
        return None
    index = parameters["ifindex"]
    return index if isinstance(index, int) else None
