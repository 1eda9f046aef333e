"""The data model of shaping: what should be shaped and what the kernel holds.

Pure values, with no I/O. Rates are bits per second. Class ids are those of the shaper's filters: 2n for egress of slot
n, 2n+1 for ingress (see `reconciler/kernel/shaper.c`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from webhook.common.contract import Direction

IFB_NAME: Final = "vethbw0"
"""The ifb in the Pod's netns. cAdvisor skips veth*, so the Pod's ingress is not counted twice."""
COORDINATOR_VETH: Final = "veth0"
"""What Spiderpool's coordinator adds for Service, node and overlay traffic."""
FQ_HANDLE: Final = 0x1BD0_0000
"""Handle `1bd0:` of the root fq that the project makes, by which we recognize it."""
SPLITTER_HANDLE: Final = 0x1BD3_0000
"""Handle `1bd3:` of the root that splits packets, with an fq below it: see Splitting."""
EGRESS_PRIORITY: Final = 1
"""First, so the shaper sees each packet before any other filter could let it pass."""
INGRESS_PRIORITY: Final = 0xFFF0
"""Last, as the redirection takes packets away from later filters."""
HANDLE_CLSACT_OURS: Final = 0x1BD1
"""Handle of a filter on a clsact that we made: both are deleted together, unless a foreign filter is left."""
HANDLE_CLSACT_FOREIGN: Final = 0x1BD2
"""Handle of a filter on a clsact that was there before."""
OUR_HANDLES: Final = frozenset({HANDLE_CLSACT_OURS, HANDLE_CLSACT_FOREIGN})
GSO_DEFAULT_BYTES: Final = 65536
"""The kernel's default (GSO_LEGACY_MAX_SIZE). Up to it, the kernel makes the bound for IPv4 follow (Linux 6.3)."""
GSO_BURST_NS: Final = 2_000_000
"""A packet is sent in one piece: at most 2 ms of the limit, so that no 100 ms see more than 102 % of it. Not less: TCP
keeps only two or three packets in the queue, and a stall of the machine longer than they last is lost time."""
GSO_LEAST_BYTES: Final = 2 * 1514
"""Two full packets: a packet may be as long as this where 2 ms of the limit are less."""
LINK_HEADER_BYTES: Final = 14
"""The header of Ethernet: ipvlan and veth links are Ethernet."""
VLAN_TAGS_BYTES: Final = 8
"""Two VLAN tags: a packet may be longer than MTU and header by this."""
SPLIT_BELOW: Final = 100_000_000
"""Ingress limits below this, in bits per second: a packet of 64 KiB would take more than 5 ms of it."""
SLOW_BELOW: Final = 1_000_000
"""Below this, in bits per second, a full packet takes more than 12 ms: a late timer is late by a small part of it."""
SHARED_CLSACT: Final = "clsact with a shared block"
"""Its filters are shared with other links: none can be added for one link alone (tc(8), shared blocks)."""
FILTER_NAME_PREFIX: Final = "ipvlan-bandwidth:"


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface. `kind` is the kernel's (`ipvlan`, `veth`, `ifb`, ...), `mode` that of an ipvlan slave.

    `gso_max_bytes` is the largest packet that TCP hands to it, to be cut into segments later; `tso_max_bytes` is the
    largest `gso_max_bytes` that its driver allows, None if unknown; `mtu` is without the link's header.
    """

    name: str
    kind: str
    mode: str | None = None
    is_up: bool = True
    gso_max_bytes: int = GSO_DEFAULT_BYTES
    tso_max_bytes: int | None = GSO_DEFAULT_BYTES
    mtu: int = 1500

    @property
    def most_gso_bytes(self) -> int:
        """The most to set `gso_max_bytes` to: only what is known to be allowed, as nothing refuses more."""
        return self.gso_max_bytes if self.tso_max_bytes is None else self.tso_max_bytes


@dataclass(frozen=True, slots=True)
class Splitting:
    """What the root of the ifb does with packets that GRO has merged, or that a sender on this node never cut.

    Such a packet has one stamp, and at 1 Mbit/s its 64 KiB take half a second: it would arrive as one burst. Above
    `size_bytes` it is cut into its segments (by a tbf that is too fast to hold anything back); these all have the same
    stamp, and leave no faster than `flow_bytes_per_second` (by an fq below the tbf).
    """

    size_bytes: int
    flow_bytes_per_second: int


@dataclass(frozen=True, slots=True)
class Qdisc:
    """A root qdisc. Handle 0 is the kernel's default for the link.

    `is_intact`: if it is ours, whether it still has the bounds that we gave it. `splitting`: set if it is ours and
    splits.
    """

    kind: str
    handle: int
    is_intact: bool = True
    splitting: Splitting | None = None

    @property
    def is_ours(self) -> bool:
        """Whether the project made it."""
        return (self.kind, self.handle) in {("fq", FQ_HANDLE), ("tbf", SPLITTER_HANDLE)}

    @property
    def is_foreign(self) -> bool:
        """Whether it was put there on purpose by others."""
        return self.handle != 0 and not self.is_ours


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter on a link's clsact. `hook` is where it sits: EGRESS or INGRESS of the link, not of the Pod.

    `program_id` and `class_id` are a bpf filter's, `redirects_to` is the link that a matchall redirects to; all are set
    only with a handle of ours. Filters of a `chain` other than 0 see only packets that a filter of chain 0 sends there.
    """

    hook: Direction
    kind: str
    priority: int
    handle: int
    name: str = ""
    program_id: int | None = None
    class_id: int | None = None
    redirects_to: str | None = None
    chain: int = 0

    @property
    def is_ours(self) -> bool:
        """Whether the project made it: its place and its handle or name say so."""
        if self.handle not in OUR_HANDLES or self.chain:
            return False
        if self.hook is Direction.EGRESS:
            ours = self.kind == "bpf" and self.name.startswith(FILTER_NAME_PREFIX)
            return ours and self.priority == EGRESS_PRIORITY
        return self.kind == "matchall" and self.priority == INGRESS_PRIORITY


@dataclass(frozen=True, slots=True)
class ObservedLink:
    """A link, and what traffic control holds on it.

    `classifier` is the kind of qdisc that holds its filters, or SHARED_CLSACT. `index` stays when it is renamed.
    """

    link: Link
    root: Qdisc = field(default_factory=lambda: Qdisc("noqueue", 0))
    classifier: str | None = None
    filters: tuple[Filter, ...] = ()
    index: int = 0

    @property
    def has_no_place(self) -> bool:
        """Whether the qdisc in the place of a clsact takes no filter of ours."""
        return self.classifier not in {None, "clsact"}

    @property
    def is_touched(self) -> bool:
        """Whether anything of ours is on it, or it is our ifb."""
        is_ifb = self.link.name == IFB_NAME and self.link.kind == "ifb"
        return is_ifb or self.root.is_ours or any(held.is_ours for held in self.filters)

    def ours(self, hook: Direction) -> Filter | None:
        """Our filter at a hook."""
        return next((held for held in self.filters if held.hook is hook and held.is_ours), None)

    def intruder(self, hook: Direction) -> Filter | None:
        """A foreign filter that sits at our place."""
        place = EGRESS_PRIORITY if hook is Direction.EGRESS else INGRESS_PRIORITY
        at_place = (held for held in self._first(hook) if held.priority == place)
        return next((held for held in at_place if not held.is_ours), None)

    @property
    def ahead_of_redirect(self) -> Filter | None:
        """A foreign filter that sees received packets before ours, and may keep them from ours."""
        ingress = (held for held in self._first(Direction.INGRESS) if not held.is_ours)
        return next((held for held in ingress if held.priority < INGRESS_PRIORITY), None)

    def _first(self, hook: Direction) -> Iterable[Filter]:
        """The filters of chain 0, which packets reach first."""
        return (held for held in self.filters if held.hook is hook and not held.chain)

    @property
    def is_stray_ifb(self) -> bool:
        """Whether this is our ifb, renamed by others: our shaper is on no other ifb."""
        return self.link.kind == "ifb" and self.link.name != IFB_NAME and self.ours(Direction.EGRESS) is not None


@dataclass(frozen=True, slots=True)
class LimitEntry:
    """What the limits map holds for one slot and direction.

    `is_exact`: whether the other figures are those that follow from the rate; others may have been written.
    """

    bits_per_second: int
    generation: int
    pod_uid: str
    netns_inode: int
    is_exact: bool = True


@dataclass(frozen=True, slots=True)
class ObservedShaping:
    """What the kernel holds for one network namespace and its slot.

    `unseen_ipvlan` is the number of ipvlan links that are not in `links`, as they are too many to look at;
    `unseen_others` has the names of other links of which that is so, by index.
    """

    links: tuple[ObservedLink, ...]
    limits: Mapping[Direction, LimitEntry] = field(default_factory=dict)
    unseen_ipvlan: int = 0
    unseen_others: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DesiredShaping:
    """What one network namespace should have. A direction without an entry in `limits` is not limited.

    `may_split`: whether the kernel can split packets; without it, ingress is still limited. `may_redirect`: whether it
    can redirect ingress to the ifb; without it, only egress is limited.
    """

    slot: int
    program_id: int
    filter_name: str
    limits: Mapping[Direction, LimitEntry]
    may_split: bool = True
    may_redirect: bool = True


class ProblemKind(StrEnum):
    """The kind of a problem, in one word for metrics and events."""

    NO_IPVLAN = "NoIpvlan"
    CONFLICT = "Conflict"
    FOREIGN_FILTER = "ForeignFilter"
    L3S_INGRESS = "L3sIngress"
    TOO_MANY_LINKS = "TooManyInterfaces"
    RENAMED = "RenamedInterface"


@dataclass(frozen=True, slots=True)
class Problem:
    """The kernel's state keeps us from shaping: reported to the Pod's owner, not an error of the reconciler."""

    kind: ProblemKind
    message: str


class Bucket(NamedTuple):
    """Where a filter leads to: its program, and the class id by which that finds the limit."""

    program_id: int
    class_id: int


def class_id(slot: int, direction: Direction) -> int:
    """The class id by which the shaper finds a slot's bucket."""
    return 2 * slot + (direction is Direction.INGRESS)


def bucket_of(class_id: int) -> tuple[int, Direction]:
    """The slot and the direction that a class id stands for."""
    slot, is_ingress = divmod(class_id, 2)
    return slot, Direction.INGRESS if is_ingress else Direction.EGRESS


def buckets(links: Iterable[ObservedLink]) -> Iterator[Bucket]:
    """The buckets that the links' filters of ours lead to."""
    for held in (link.ours(Direction.EGRESS) for link in links):
        if held is not None and held.program_id is not None and held.class_id is not None:
            yield Bucket(held.program_id, held.class_id)


def covered(links: tuple[ObservedLink, ...]) -> tuple[ObservedLink, ...]:
    """The links that share the Pod's limits: all its ipvlan slaves, and the coordinator's veth0 beside them.

    A veth with a filter or root of ours is that one: a container with NET_ADMIN can rename it.
    """
    if not any(observed.link.kind == "ipvlan" for observed in links):
        return ()
    return tuple(observed for observed in links if observed.link.kind == "ipvlan" or _is_coordinators(observed))


def _is_coordinators(observed: ObservedLink) -> bool:
    return observed.link.kind == "veth" and (observed.link.name == COORDINATOR_VETH or observed.is_touched)


def gso_max_bytes(bits_per_second: int) -> int:
    """How large a packet may be at a rate, in bytes, so that sending it in one piece is no burst to speak of."""
    burst = bits_per_second * GSO_BURST_NS // (8 * 10**9)
    return min(max(burst, GSO_LEAST_BYTES), GSO_DEFAULT_BYTES)


def splitting(bits_per_second: int, links: Iterable[Link]) -> Splitting | None:
    """What the ifb's root needs at an ingress limit; None where packets may come as they are.

    Packets that cannot be split (up to the largest MTU) must fit, or they would be dropped. The segments of a packet
    leave at 5/4 of the limit, so that a flow can make up for a late timer. At a low rate it is a 64th, as fq itself
    makes up for timers that are late by less than half a packet. With a quarter, the first ten packets of a connection,
    which come as one, are 109 % of its first second at 100k; with a sixteenth, the benchmark had 103.4 % there.
    """
    if bits_per_second >= SPLIT_BELOW:
        return None
    largest = max((link.mtu for link in links), default=0) + LINK_HEADER_BYTES + VLAN_TAGS_BYTES
    faster = bits_per_second // (64 if bits_per_second < SLOW_BELOW else 4)
    return Splitting(max(GSO_LEAST_BYTES, largest), (bits_per_second + faster) // 8)
