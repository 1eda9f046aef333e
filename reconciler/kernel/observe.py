"""What a network namespace holds: links, root qdiscs and filters, as values of `reconciler.model`."""

import errno
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from reconciler.kernel.attributes import (
    FQ_BOUNDS,
    FQ_MAX_RATE,
    TrafficControlMessage,
    paced_bounds,
    splitter_parameters,
)
from reconciler.kernel.errors import NetlinkError, ShapingError
from reconciler.kernel.filters import PARENTS, Filters
from reconciler.kernel.netlink import RTM_GETLINK, RTM_GETQDISC, Netlink
from reconciler.kernel.raw import (
    IFLA_GSO_MAX_SIZE,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_IPVLAN_MODE,
    IFLA_LINK,
    IFLA_LINKINFO,
    IFLA_MTU,
    IFLA_TSO_MAX_SIZE,
    LINK_ATTRIBUTES,
    TC_ATTRIBUTES,
    TCA_KIND,
    link_index_of,
    link_is_up,
    number,
    raw_attributes,
    text,
    traffic_control,
)
from reconciler.model import (
    COORDINATOR_VETH,
    GSO_DEFAULT_BYTES,
    IFB_NAME,
    SHARED_CLSACT,
    SPLITTER_HANDLE,
    Link,
    ObservedLink,
    ObservedShaping,
    Qdisc,
    Splitting,
)
from webhook.common.contract import Direction

TC_H_ROOT: Final = 0xFFFFFFFF
TC_H_CLSACT: Final = 0xFFFFFFF1
BELOW_SPLITTER: Final = (SPLITTER_HANDLE | 1, 0x1BD4_0000)
"""Parent and handle of the fq below our tbf, whose one class is 1."""
MOST_LINKS: Final = 64
_MOST_LISTED_LINKS: Final = 4096
MOST_QDISCS: Final = 10_000
_IPVLAN: Final = "ipvlan"
_IPVTAP: Final = "ipvtap"
"""An ipvlan link with a character device: as any other ipvlan link while the device is not read."""
_KINDS: Final = frozenset({_IPVLAN, "veth", "ifb"})
_NAMES: Final = frozenset({IFB_NAME, COORDINATOR_VETH})
_IPVLAN_MODES: Final = {0: "l2", 1: "l3", 2: "l3s"}
_BLOCKS: Final = frozenset({13, 14})
"""TCA_INGRESS_BLOCK and TCA_EGRESS_BLOCK: a qdisc has them if its filters are shared with others."""
_CLASSIFIERS: Final = frozenset({"clsact", "ingress"})


def observe_netns(netlink: Netlink) -> ObservedShaping:
    """The netns' links that may matter, with what traffic control holds on them; no limits. Raises NetlinkError.

    Those are its ipvlan, veth and ifb links, and any link with one of our names: at most `MOST_LINKS` of those kinds,
    ipvlan before others and the oldest of each, so that thousands of links cannot keep us busy.
    """
    relevant, beyond = _relevant(dump_links(netlink))
    links = {link_index_of(message): _link(message, name, kind) for message, name, kind in relevant}
    names = {index: link.name for index, link in links.items()}
    netlink.link_indexes = {name: index for index, name in names.items()}
    roots: dict[int, bytes] = {}
    paced: dict[int, bytes] = {}
    classifiers: dict[int, str] = {}
    for message in dump_qdiscs(netlink):
        head = traffic_control(message)
        if head.link not in links:
            continue
        if head.parent == TC_H_CLSACT:
            classifiers[head.link] = _classifier(message)
        elif head.parent == TC_H_ROOT:
            roots[head.link] = message
        elif (head.parent, head.handle) == BELOW_SPLITTER:
            paced[head.link] = message
    filters = Filters(netlink, names)
    observed = (
        ObservedLink(
            link,
            _root(roots.get(index), paced.get(index)),
            classifiers.get(index),
            filters.of(index, _hooks(link)) if classifiers.get(index) == "clsact" else (),
            index,
        )
        for index, link in links.items()
    )
    return ObservedShaping(
        tuple(observed),
        unseen_ipvlan=sum(kind == _IPVLAN for _, _, kind in beyond),
        unseen_others={link_index_of(message): name for message, name, kind in beyond if kind != _IPVLAN},
    )


def link_index(netlink: Netlink, name: str) -> int:
    """The index of a link, from the last list if it is there, else from a new one. Raises NetlinkError."""
    if name not in netlink.link_indexes:
        netlink.link_indexes = {name_and_kind(each)[0]: link_index_of(each) for each in dump_links(netlink)}
    if name not in netlink.link_indexes:
        raise NetlinkError(errno.ENODEV, f"no interface {name}")
    return netlink.link_indexes[name]


def dump_links(netlink: Netlink) -> list[bytes]:
    """All links. Raises NetlinkError, also if there are too many to read."""
    return _all(netlink, ifinfmsg(), RTM_GETLINK, _MOST_LISTED_LINKS, "interfaces")


def dump_qdiscs(netlink: Netlink) -> list[bytes]:
    """All qdiscs of all links, which the kernel lists only together. Raises NetlinkError, as above."""
    return _all(netlink, TrafficControlMessage(), RTM_GETQDISC, MOST_QDISCS, "qdiscs")


def _all(netlink: Netlink, request: Any, message_type: int, most: int, what: str) -> list[bytes]:
    listing = netlink.dump(request, message_type, most)
    if listing.are_all:
        return listing.messages
    message = (
        f"it has more than {len(listing.messages)} {what}, and no more are read; what is in force stays, but if it is "
        "taken off, it is not put back; delete those that are not used, and if a container makes them, drop NET_ADMIN"
    )
    raise NetlinkError(errno.EMSGSIZE, message)


def name_and_kind(message: bytes) -> tuple[str, str]:
    """The name of a link as used everywhere here, whatever its bytes are, and its kind."""
    held = raw_attributes(message, LINK_ATTRIBUTES)
    kind = text(_info(held).get(IFLA_INFO_KIND, b""))
    return text(held.get(IFLA_IFNAME, b"")), _IPVLAN if kind == _IPVTAP else kind


def _mode(held: Mapping[int, bytes]) -> str | None:
    """The mode of an ipvlan link."""
    value = raw_attributes(_info(held).get(IFLA_INFO_DATA, b""), 0).get(IFLA_IPVLAN_MODE, b"")
    return _IPVLAN_MODES.get(int.from_bytes(value[:2], sys.byteorder)) if value else None


def _info(link: Mapping[int, bytes]) -> dict[int, bytes]:
    """What a link's attributes say of its kind."""
    return raw_attributes(link.get(IFLA_LINKINFO, b""), 0)


def _relevant(messages: Iterable[bytes]) -> tuple[list[tuple[bytes, str, str]], list[tuple[bytes, str, str]]]:
    """The links that matter, with names and kinds, by index; and likewise those beyond the bound.

    If there are more than the bound, ipvlan comes before others, as only ipvlan is limited.
    """
    links = [(message, *name_and_kind(message)) for message in sorted(messages, key=link_index_of)]
    counted = sorted((kind != _IPVLAN, number) for number, (_, _, kind) in enumerate(links) if kind in _KINDS)
    kept = {number for _, number in counted[:MOST_LINKS]}
    seen = [each for number, each in enumerate(links) if each[1] in _NAMES or number in kept]
    return seen, [links[number] for _, number in counted[MOST_LINKS:] if links[number][1] not in _NAMES]


def _decoded(raw: bytes) -> TrafficControlMessage:
    message = TrafficControlMessage(raw)
    message.decode()
    return message


def _hooks(link: Link) -> Iterable[Direction]:
    """The hooks of a link that packets pass: what our ifb gives back is received on the link that it came from."""
    return (Direction.EGRESS,) if (link.name, link.kind) == (IFB_NAME, "ifb") else PARENTS


def _classifier(raw: bytes) -> str:
    held = raw_attributes(raw, TC_ATTRIBUTES)
    kind = text(held.get(TCA_KIND, b""))
    return SHARED_CLSACT if kind == "clsact" and not _BLOCKS.isdisjoint(held) else kind


def _link(raw: bytes, name: str, kind: str) -> Link:
    held = raw_attributes(raw, LINK_ATTRIBUTES)
    allowed = number(held.get(IFLA_TSO_MAX_SIZE))
    return Link(
        name,
        kind,
        _mode(held) if kind == _IPVLAN else None,
        is_up=link_is_up(raw),
        gso_max_bytes=number(held.get(IFLA_GSO_MAX_SIZE)) or GSO_DEFAULT_BYTES,
        tso_max_bytes=allowed or _master_allows(number(held.get(IFLA_LINK)) or 0, kind),
        mtu=number(held.get(IFLA_MTU)) or 0,
    )


def _master_allows(master: int, kind: str) -> int | None:
    """The packet size that a link's driver allows, if the kernel does not report it (before Linux 5.19).

    An ipvlan link has it from its master, a veth from its peer, in the node's netns: any veth, as the coordinator's may
    have been renamed. None if that cannot be read.
    """
    if not master or kind not in {_IPVLAN, "veth"}:
        return None
    request = ifinfmsg()
    request["index"] = master
    try:
        with Netlink.here() as node:
            answer = node.ask(request, RTM_GETLINK) or b""
    except ShapingError:  # the link does not exist, or is elsewhere; or we are out of descriptors
        return None
    return number(raw_attributes(answer, LINK_ATTRIBUTES).get(IFLA_GSO_MAX_SIZE)) or None


def _root(raw: bytes | None, raw_below: bytes | None) -> Qdisc:
    """A root qdisc, with the fq below it if it is ours and splits. A foreign one is not decoded."""
    if raw is None:
        return Qdisc("noqueue", 0)
    root = Qdisc(text(raw_attributes(raw, TC_ATTRIBUTES).get(TCA_KIND, b"")), traffic_control(raw).handle)
    options = _decoded(raw).get_attr("TCA_OPTIONS") if root.is_ours else None
    if not options:
        return root
    if root.kind == "fq":
        return replace(root, is_intact=_has_bounds(options, FQ_BOUNDS))
    parameters = options.get_attr("TCA_TBF_PARMS")
    wanted = splitter_parameters(parameters["limit"])
    below = _decoded(raw_below) if raw_below is not None else None
    fq = below.get_attr("TCA_OPTIONS") if below is not None and below.get_attr("TCA_KIND") == "fq" else None
    if not fq or any(parameters[name] != value for name, value in wanted.items()):
        return replace(root, is_intact=False)
    rate = fq.get_attr(FQ_MAX_RATE)
    return replace(root, is_intact=_has_bounds(fq, paced_bounds(rate)), splitting=Splitting(parameters["limit"], rate))


def _has_bounds(options: Any, bounds: Mapping[str, int]) -> bool:
    """Whether an fq has the bounds that we give it. A bound that is not reported, the kernel lacks (horizon: 5.8)."""
    return all(options.get_attr(name) in {None, bound} for name, bound in bounds.items())
