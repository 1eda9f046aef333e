"""The table of slots of the shaper's maps, and the network namespace that owns each. Pure.

A class id has 16 bits, so slots are few and reused: the lowest free one is taken. Slot 0 stays unused, so that class
id 0, which means that a filter has none, is never a Pod's. The assignments are kept in the limits map itself (see
`reconciler/kernel/buckets.py`): this table is only a copy of them.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class SlotOwner:
    """Owns a slot: a Pod's uid and the inode of its netns. A recreated sandbox has the same uid, a new netns."""

    pod_uid: str
    netns_inode: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """A taken slot. `generation` is never 0 and differs between owners: the shaper starts afresh with each."""

    slot: int
    generation: int


@dataclass(slots=True)
class SlotTable:
    """All assignments."""

    size: int
    taken: dict[SlotOwner, Assignment] = field(default_factory=dict)
    last_generation: int = 0

    def assign(self, owner: SlotOwner) -> Assignment | None:
        """The owner's slot: the one it has, or the lowest free one; None if all are taken."""
        if owner in self.taken:
            return self.taken[owner]
        used = {assignment.slot for assignment in self.taken.values()}
        slot = next((candidate for candidate in range(1, self.size + 1) if candidate not in used), None)
        if slot is None:
            return None
        assignment = Assignment(slot, self.last_generation + 1)
        self.adopt(owner, assignment)
        return assignment

    def adopt(self, owner: SlotOwner, assignment: Assignment) -> None:
        """Take over an assignment that was found in the kernel."""
        self.taken[owner] = assignment
        self.last_generation = max(self.last_generation, assignment.generation)

    def free(self, owner: SlotOwner) -> None:
        """Free the owner's slot, whether it has one or not."""
        self.taken.pop(owner, None)
