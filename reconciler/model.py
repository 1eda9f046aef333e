"""The data model of shaping: what should be shaped and what the kernel holds.

Pure values, with no I/O. Rates are bits per second. Class ids are those of the shaper's filters: 2n for egress of slot
n, 2n+1 for ingress (see `reconciler/kernel/shaper.c`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from webhook.contract import Direction

IFB_NAME: Final = "vethbw0"
"""The ifb in the Pod's netns. cAdvisor skips veth*, so the Pod's ingress is not counted twice."""
COORDINATOR_VETH: Final = "veth0"
"""What Spiderpool's coordinator adds for Service, node and overlay traffic."""
FQ_HANDLE: Final = 0x1BD0_0000
"""Handle `1bd0:` of the root fq that the project makes: by it we know our own."""
SPLITTER_HANDLE: Final = 0x1BD3_0000
"""Handle `1bd3:` of the root that splits packets, with an fq below it: see Splitting."""
EGRESS_PRIORITY: Final = 1
"""The shaper sees what leaves before any other filter could let it pass."""
INGRESS_PRIORITY: Final = 0xFFF0
"""The redirection takes packets away from later filters, so it comes last."""
HANDLE_CLSACT_OURS: Final = 0x1BD1
"""Handle of a filter on a clsact that we made: clsact goes when the filter does, unless a foreign filter is left."""
HANDLE_CLSACT_FOREIGN: Final = 0x1BD2
"""Handle of a filter on a clsact that was there before."""
OUR_HANDLES: Final = frozenset({HANDLE_CLSACT_OURS, HANDLE_CLSACT_FOREIGN})
GSO_DEFAULT_BYTES: Final = 65536
"""The kernel's default (GSO_LEGACY_MAX_SIZE). Up to it, the kernel lets what binds IPv4 follow (Linux 6.3)."""
GSO_BURST_NS: Final = 2_000_000
"""A packet is sent in one piece: at most 2 ms of the limit, so that no 100 ms see more than 102 % of it. Not less: TCP
keeps only two or three of them in the queue, and a machine that stalls for longer than they last loses that time ..."""
GSO_LEAST_BYTES: Final = 2 * 1514
"""... or two full packets, where that is more."""
LINK_HEADER_BYTES: Final = 14
"""Of Ethernet, which ipvlan and veth are."""
VLAN_TAGS_BYTES: Final = 8
"""Of two VLAN tags, by which a packet may be longer than MTU and header."""
SPLIT_BELOW: Final = 100_000_000
"""Ingress limits below this, in bits per second: a packet of 64 KiB would take more than 5 ms of it."""
SLOW_BELOW: Final = 1_000_000
"""Below this, in bits per second, a full packet takes more than 12 ms: a timer that is late is late by little of it."""
SHARED_CLSACT: Final = "clsact with a shared block"
"""Its filters are other links' too: none can be put on one of them (tc(8), shared blocks)."""
FILTER_NAME_PREFIX: Final = "ipvlan-bandwidth:"


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface. `kind` is the kernel's (`ipvlan`, `veth`, `ifb`, ...), `mode` that of an ipvlan slave.

    `gso_max_bytes` is the largest packet that TCP hands to it, to be cut into segments later, and `tso_max_bytes` the
    most that its driver lets that be, None where that is not known; `mtu` is without the link's header.
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
        """The most that `gso_max_bytes` may be: what is not known to be allowed is not tried, as nothing refuses it."""
        return self.gso_max_bytes if self.tso_max_bytes is None else self.tso_max_bytes


@dataclass(frozen=True, slots=True)
class Splitting:
    """What the root of the ifb does with packets that GRO has merged, or a sender on this node never cut.

    Such a packet has one stamp, and at 1 Mbit/s its 64 KiB take half a second: it would come as one burst. Above
    `size_bytes` it is cut into its segments (a tbf that is too fast to hold anything back), and these, all of the same
    stamp, leave no faster than `flow_bytes_per_second` (an fq below it).
    """

    size_bytes: int
    flow_bytes_per_second: int


@dataclass(frozen=True, slots=True)
class Qdisc:
    """A root qdisc. Handle 0 is the kernel's default for the link.

    `is_intact`: if it is ours, whether its bounds are still those that we gave it. `splitting`: if it is ours, and one
    that splits.
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
        """Whether somebody else put it there on purpose."""
        return self.handle != 0 and not self.is_ours


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter on a link's clsact. `hook` is where it sits: EGRESS or INGRESS of the link, not of the Pod.

    `program_id` and `class_id` are of a bpf filter, `redirects_to` is the link that a matchall redirects to; all of one
    with a handle of ours. Filters of another `chain` than 0 see no packet, unless one of chain 0 sends it there.
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

    `classifier` is the kind of qdisc that holds its filters, or SHARED_CLSACT.
    """

    link: Link
    root: Qdisc = field(default_factory=lambda: Qdisc("noqueue", 0))
    classifier: str | None = None
    filters: tuple[Filter, ...] = ()

    @property
    def has_no_place(self) -> bool:
        """Whether what holds its filters takes none of ours."""
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
        """A foreign filter that sees what the link receives before we do, and may keep it from us."""
        ingress = (held for held in self._first(Direction.INGRESS) if not held.is_ours)
        return next((held for held in ingress if held.priority < INGRESS_PRIORITY), None)

    def _first(self, hook: Direction) -> Iterable[Filter]:
        """The filters that packets come to first."""
        return (held for held in self.filters if held.hook is hook and not held.chain)

    @property
    def is_stray_ifb(self) -> bool:
        """Whether this is our ifb under another name: somebody renamed it. Our shaper is on no other's."""
        return self.link.kind == "ifb" and self.link.name != IFB_NAME and self.ours(Direction.EGRESS) is not None


@dataclass(frozen=True, slots=True)
class LimitEntry:
    """What the limits map holds for one slot and direction.

    `is_exact`: whether the figures beside the rate are those that follow from it; somebody may have written others.
    """

    bits_per_second: int
    generation: int
    pod_uid: str
    netns_inode: int
    is_exact: bool = True


@dataclass(frozen=True, slots=True)
class ObservedShaping:
    """What the kernel holds for one network namespace and its slot.

    `unseen_ipvlan` is how many ipvlan links there are beside those of `links`, which are too many to look at.
    """

    links: tuple[ObservedLink, ...]
    limits: Mapping[Direction, LimitEntry] = field(default_factory=dict)
    unseen_ipvlan: int = 0


@dataclass(frozen=True, slots=True)
class DesiredShaping:
    """What one network namespace should have. A direction without an entry in `limits` is not limited.

    `may_split`: whether the kernel has what splits packets; ingress is limited without it too. `may_redirect`: whether
    it has what leads ingress to the ifb; only egress is limited without it.
    """

    slot: int
    program_id: int
    filter_name: str
    limits: Mapping[Direction, LimitEntry]
    may_split: bool = True
    may_redirect: bool = True


class ProblemKind(StrEnum):
    """What is not as it should be, in one word for metrics and events."""

    NO_IPVLAN = "NoIpvlan"
    CONFLICT = "Conflict"
    FOREIGN_FILTER = "ForeignFilter"
    L3S_INGRESS = "L3sIngress"
    TOO_MANY_LINKS = "TooManyInterfaces"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something the kernel's state keeps us from: said to the Pod's owner, not an error of the reconciler."""

    kind: ProblemKind
    message: str


def class_id(slot: int, direction: Direction) -> int:
    """The class id by which the shaper finds a slot's bucket."""
    return 2 * slot + (direction is Direction.INGRESS)


def bucket_of(class_id: int) -> tuple[int, Direction]:
    """The slot and the direction that a class id stands for."""
    slot, is_ingress = divmod(class_id, 2)
    return slot, Direction.INGRESS if is_ingress else Direction.EGRESS


def covered(links: tuple[ObservedLink, ...]) -> tuple[ObservedLink, ...]:
    """The links that share the Pod's limits: all its ipvlan slaves, and the coordinator's veth0 beside them."""
    if not any(observed.link.kind == "ipvlan" for observed in links):
        return ()
    return tuple(
        observed
        for observed in links
        if observed.link.kind == "ipvlan" or (observed.link.kind == "veth" and observed.link.name == COORDINATOR_VETH)
    )


def gso_max_bytes(bits_per_second: int) -> int:
    """How large a packet may be at a rate, in bytes, so that sending it in one piece is no burst to speak of."""
    burst = bits_per_second * GSO_BURST_NS // (8 * 10**9)
    return min(max(burst, GSO_LEAST_BYTES), GSO_DEFAULT_BYTES)


def splitting(bits_per_second: int, links: Iterable[Link]) -> Splitting | None:
    """What the ifb's root needs at an ingress limit; None where packets may come as they are.

    Packets that cannot be split must fit, or they would be dropped: those of the largest MTU. The segments of a packet
    leave at 5/4 of the limit, so that a flow can make up for a late timer. At a low rate a sixteenth is enough: with a
    quarter, the ten packets that a connection begins with, which come as one, are 109 % of its first second at 100k.
    """
    if bits_per_second >= SPLIT_BELOW:
        return None
    largest = max((link.mtu for link in links), default=0) + LINK_HEADER_BYTES + VLAN_TAGS_BYTES
    faster = bits_per_second // (16 if bits_per_second < SLOW_BELOW else 4)
    return Splitting(max(GSO_LEAST_BYTES, largest), (bits_per_second + faster) // 8)
