"""The steps from what the kernel holds to what it should hold: a closed union of values.

The string of each step says what it does, for events and logs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.model import IFB_NAME, LimitEntry, Problem, Splitting
from webhook.common.contract import Direction


@dataclass(frozen=True, slots=True)
class WriteLimit:
    """Write a slot's entry in the limits map."""

    slot: int
    direction: Direction
    entry: LimitEntry

    def __str__(self) -> str:
        return f"write the {self.direction} limit {self.entry.bits_per_second} bit/s of slot {self.slot}"


@dataclass(frozen=True, slots=True)
class ClearLimit:
    """Clear a slot's entry in the limits map."""

    slot: int
    direction: Direction

    def __str__(self) -> str:
        return f"clear the {self.direction} limit of slot {self.slot}"


@dataclass(frozen=True, slots=True)
class CreateIfb:
    """Make the ifb, down, without an address of its own."""

    def __str__(self) -> str:
        return f"create the ifb {IFB_NAME}"


@dataclass(frozen=True, slots=True)
class SetUp:
    """Bring a link up."""

    link: str

    def __str__(self) -> str:
        return f"bring {self.link} up"


@dataclass(frozen=True, slots=True)
class SetRoot:
    """Make our fq the root qdisc of a link, or the child of a tbf that splits packets if that is wanted.

    A root of the same kind gets its bounds back, and keeps its queued packets; one of the other kind loses them. So
    does any with `afresh`: packets longer than a tbf's new bound would be stuck in it for good.

    `is_update`: nobody changed the root; but a link's MTU has grown, or what splits is there only now.
    """

    link: str
    splitting: Splitting | None = None
    afresh: bool = False
    is_update: bool = False

    def __str__(self) -> str:
        wanted = self.splitting
        if wanted is None:
            return f"set fq on {self.link}"
        rate = wanted.flow_bytes_per_second * 8
        return f"set fq of {rate} bit/s a flow on {self.link}, behind a tbf that splits above {wanted.size_bytes} bytes"


@dataclass(frozen=True, slots=True)
class SetGsoMaxBytes:
    """Bound the packets that TCP connections opened from now on hand to a link."""

    link: str
    size_bytes: int

    def __str__(self) -> str:
        return f"set the largest GSO packet on {self.link} to {self.size_bytes} bytes"


@dataclass(frozen=True, slots=True)
class AttachShaper:
    """Add the shaper's filter at a link's egress, or replace our own there.

    `with_clsact` makes the clsact too, in the same system call: after a crash in between, it would be unknown whose the
    clsact without a filter is.
    """

    link: str
    handle: int
    class_id: int
    with_clsact: bool = False

    def __str__(self) -> str:
        clsact = " with a clsact" if self.with_clsact else ""
        return f"attach the shaper to {self.link}{clsact}, class id {self.class_id}"


@dataclass(frozen=True, slots=True)
class AttachRedirect:
    """Add the filter that sends a link's ingress to the ifb, `with_clsact` as AttachShaper.

    `replacing`: in place of our filter that redirects elsewhere: the kernel cannot change a matchall's target.
    """

    link: str
    handle: int
    with_clsact: bool = False
    replacing: bool = False

    def __str__(self) -> str:
        clsact = ", with a clsact" if self.with_clsact else ""
        return f"redirect what {self.link} receives to {IFB_NAME}{clsact}"


@dataclass(frozen=True, slots=True)
class DetachFilter:
    """Delete one of our filters."""

    link: str
    hook: Direction
    handle: int

    def __str__(self) -> str:
        return f"detach the {self.hook} filter from {self.link}"


@dataclass(frozen=True, slots=True)
class DeleteClsact:
    """Delete a clsact that we made and that holds no foreign filter, and our filters on it."""

    link: str

    def __str__(self) -> str:
        return f"delete clsact from {self.link}"


@dataclass(frozen=True, slots=True)
class DeleteRoot:
    """Delete our root qdisc: the link's default comes back."""

    link: str
    handle: int

    def __str__(self) -> str:
        return f"delete our root qdisc from {self.link}"


@dataclass(frozen=True, slots=True)
class DeleteIfb:
    """Delete the ifb, under whatever name, and all it holds."""

    link: str = IFB_NAME

    def __str__(self) -> str:
        return f"delete the ifb {self.link}"


Step = (
    WriteLimit
    | ClearLimit
    | CreateIfb
    | SetUp
    | SetRoot
    | SetGsoMaxBytes
    | AttachShaper
    | AttachRedirect
    | DetachFilter
    | DeleteClsact
    | DeleteRoot
    | DeleteIfb
)
"""All that the project ever does to the kernel."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps, in order, and what stands in the way.

    `missing`: the directions that are asked for but not limited on all links that share the limits, even after all
    steps; with the links where they are not.
    """

    steps: tuple[Step, ...] = ()
    problems: tuple[Problem, ...] = ()
    missing: Mapping[Direction, tuple[str, ...]] = field(default_factory=dict)
