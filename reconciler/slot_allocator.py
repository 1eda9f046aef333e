"""Allocates slots of the program's maps to Pods' network namespaces, and reads and writes their entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reconciler.bypass import Traffic
from reconciler.counters import PodCounters, limits_of, pod_counters
from reconciler.kernel import netns
from reconciler.kernel.errors import NoSlotLeftError, StepFailedError, read_back
from reconciler.kernel.program import Program
from reconciler.model import LimitEntry, bucket_of, class_id
from reconciler.sandboxes import Key
from reconciler.slots import Assignment, SlotOwner, SlotTable
from reconciler.steps import ClearLimit, WriteLimit
from webhook.common.contract import Direction


class SlotAllocator:
    """The slots, and the paths where their owners' network namespaces are mounted, as far as known."""

    def __init__(self, program: Program, slots: SlotTable, paths: Mapping[SlotOwner, str]) -> None:
        self._program, self._slots = program, slots
        self._paths = {owner: path for owner, path in paths.items() if owner in slots.taken}

    @property
    def taken(self) -> Mapping[SlotOwner, Assignment]:
        """The owners of slots, with their assignments."""
        return self._slots.taken

    def of(self, pod_uid: str, netns_path: str) -> list[SlotOwner]:
        """A Pod's slot owners whose netns is at this path, or may be. Raises ShapingError if that cannot be read."""
        held = [owner for owner in self.taken if owner.pod_uid == pod_uid]
        placed = [owner for owner in held if self._paths.get(owner) == netns_path]
        unplaced = [owner for owner in held if owner not in self._paths]
        return placed + (_perhaps_at(netns_path, unplaced) if unplaced else [])

    def is_reused(self, pod_uid: str, netns_path: str) -> bool:
        """Whether a later Pod has a netns at the same path."""
        inode = netns.inode(netns_path)
        return any(held.netns_inode == inode and held.pod_uid != pod_uid for held in self.taken)

    def assign(self, owner: SlotOwner, netns_path: str) -> None:
        """Give the owner a slot, unless it has one. Raises NoSlotLeftError."""
        if self._slots.assign(owner) is None:
            raise NoSlotLeftError(
                f"all {self._slots.size} slots are taken: more Pods with limits than slots on this node; "
                "raise the reconciler's --slots"
            )
        self._paths[owner] = netns_path

    def free(self, owner: SlotOwner) -> None:
        """Free the owner's slot, if it has one, and clear its limits. Raises StepFailedError."""
        assignment = self.taken.get(owner)
        if assignment is not None:
            for direction in Direction:
                self.write(ClearLimit(assignment.slot, direction))
        self._slots.free(owner)
        self._paths.pop(owner, None)

    def gone(self, live: Mapping[Key, int | None]) -> list[SlotOwner]:
        """The slot owners that are not among the live ones, by their inodes, and whose netns is gone.

        Raises ShapingError when the existing network namespaces cannot be listed.
        """
        alive = {SlotOwner(pod_uid, inode) for (pod_uid, _), inode in live.items() if inode is not None}
        doubtful = [held for held in self.taken if held not in alive]
        if not doubtful:
            return []
        at_path = {held: netns.inode(path) for held in doubtful if (path := self._paths.get(held)) is not None}
        # A later Pod's netns may have the inode of one that is gone: the kernel assigns the lowest free inode. One of
        # the live may have gone since it was looked up: then a new Pod may have its inode, at that Pod's own path.
        present = netns.mounted().keys() - {held.netns_inode for held in alive}
        return [held for held in doubtful if held.netns_inode not in present and held.netns_inode != at_path.get(held)]

    def audit(self) -> list[str]:
        """The uids of the Pods whose limits in the map were overwritten by others.

        Entries that others wrote into a slot without an owner are cleared here. Raises ShapingError.
        """
        with read_back("the limits"):
            altered = {slot for slot, _ in map(bucket_of, self._program.altered())}
        owners = {assignment.slot: owner for owner, assignment in self.taken.items()}
        for slot in altered - owners.keys():
            for direction in Direction:
                self.write(ClearLimit(slot, direction))
        return [owners[slot].pod_uid for slot in sorted(altered & owners.keys())]

    def write(self, step: WriteLimit | ClearLimit) -> None:
        """Apply a plan's step that changes the limits map. Raises StepFailedError."""
        try:
            self._program.write_limit(
                class_id(step.slot, step.direction), step.entry if isinstance(step, WriteLimit) else None
            )
        except OSError as error:
            raise StepFailedError(step, error.strerror or str(error)) from error

    def limits(self, owner: SlotOwner) -> Mapping[Direction, LimitEntry]:
        """The owner's entries in the limits map. Raises ShapingError."""
        with read_back("the limits"):
            return limits_of(self._program, self.taken[owner].slot)

    def counters(self, owners: Iterable[SlotOwner] | None = None) -> list[PodCounters]:
        """The kernel's counters of these owners, or of all, as far as they have a slot. Raises ShapingError."""
        taken = ((owner, self.taken.get(owner)) for owner in (list(self.taken) if owners is None else owners))
        with read_back("the counters"):
            return [
                pod_counters(self._program, owner, assignment.slot, self._paths.get(owner))
                for owner, assignment in taken
                if assignment is not None
            ]

    def charged(self, assignment: Assignment) -> Traffic:
        """What the egress bucket was charged; zero before its first packet. Raises ShapingError."""
        with read_back("the counters"):
            seen = self._program.read_counters(class_id(assignment.slot, Direction.EGRESS))
        return Traffic(seen.bytes, seen.packets) if seen.generation == assignment.generation else Traffic()


def _perhaps_at(netns_path: str, owners: Iterable[SlotOwner]) -> list[SlotOwner]:
    """Of owners with unknown paths: the one whose netns is at this path, and those whose netns is mounted nowhere."""
    there, present = netns.inode(netns_path), netns.mounted()
    return [each for each in owners if each.netns_inode == there or each.netns_inode not in present]
