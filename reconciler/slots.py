"""The table of slots of the shaper's maps, and the network namespace that owns each. Pure.

A class id has 16 bits, so slots are few and reused: the lowest free one is taken. Slot 0 stays unused, so that class
id 0, which means that a filter has none, is never a Pod's. The assignments are kept in the limits map itself (see
`reconciler/kernel/buckets.py`): this table is only a copy of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class SlotOwner:
    """Owns a slot: a Pod's uid and the inode of its netns. A recreated sandbox has the same uid, a new netns."""

    pod_uid: str
    netns_inode: int


class NoFreeSlotError(Exception):
    """All slots are taken."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A taken slot. `generation` is never 0 and differs between owners: the shaper starts afresh with each."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class SlotTable:
    """All assignments, as a value: each change returns a new table."""

    size: int
    taken: Mapping[SlotOwner, Assignment] = field(default_factory=dict)
    last_generation: int = 0

    def assign(self, owner: SlotOwner) -> tuple["SlotTable", Assignment]:
        """The owner's slot: the one it has, or the lowest free one. Raises NoFreeSlotError."""
        if owner in self.taken:
            return self, self.taken[owner]
        used = {assignment.slot for assignment in self.taken.values()}
        slot = next((candidate for candidate in range(1, self.size + 1) if candidate not in used), None)
        if slot is None:
            raise NoFreeSlotError(f"all {self.size} slots are taken")
        assignment = Assignment(slot, self.last_generation + 1)
        return self.adopt(owner, assignment), assignment

    def adopt(self, owner: SlotOwner, assignment: Assignment) -> "SlotTable":
        """The table with an assignment that was found in the kernel."""
        latest = max(self.last_generation, assignment.generation)
        return SlotTable(self.size, {**self.taken, owner: assignment}, latest)

    def free(self, owner: SlotOwner) -> "SlotTable":
        """The table without the owner, whether it was there or not."""
        left = {held: assignment for held, assignment in self.taken.items() if held != owner}
        return SlotTable(self.size, left, self.last_generation)
