"""The counters of each limited Pod, and the assignments of slots, read from the shaper's two maps."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from reconciler.kernel.buckets import Counters, is_rate
from reconciler.kernel.program import Program
from reconciler.model import LimitEntry, class_id
from reconciler.slots import Assignment, SlotOwner, SlotTable
from webhook.common.contract import Direction, Limits, Quantity


@dataclass(frozen=True, slots=True)
class DirectionCounters:
    """One direction of one Pod: its limit in bit/s, and what passed, was dropped or ECN-marked under it.

    `queue_ns` is how long a packet of a bulk flow would wait if it came now.
    """

    bits_per_second: int
    bytes: int
    packets: int
    drops: int
    marks: int
    queue_ns: int = 0


@dataclass(frozen=True, slots=True)
class PodCounters:
    """What the kernel counts for one Pod. `netns_path` is None for an adopted Pod whose netns path is not known yet.

    `generation` is that of its slot's assignment: a later one is higher. `withheld`: the directions whose limit is not
    in force on all the Pod's interfaces that share it.
    """

    pod_uid: str
    netns_path: str | None
    directions: Mapping[Direction, DirectionCounters]
    generation: int = 0
    withheld: frozenset[Direction] = frozenset()

    @property
    def limits(self) -> Limits:
        """The limits in force."""
        return in_force({direction: held.bits_per_second for direction, held in self.directions.items()})

    def holding(self, limits: Limits) -> "PodCounters":
        """The same counters, given that these limits are in force and no others."""
        return replace(self, withheld=frozenset(each for each in self.directions if limits.get(each) is None))


def in_force(rates: Mapping[Direction, int]) -> Limits:
    """The limits for the limits map's rates (bits per second); an invalid rate, which others may write, is no limit."""
    return Limits.of({direction: Quantity(rate) for direction, rate in rates.items() if is_rate(rate)})


def limits_of(program: Program, slot: int) -> dict[Direction, LimitEntry]:
    """The entries of one slot in the limits map."""
    entries = ((direction, program.read_limit(class_id(slot, direction))) for direction in Direction)
    return {direction: entry for direction, entry in entries if entry is not None}


def pod_counters(program: Program, owner: SlotOwner, slot: int, path: str | None) -> PodCounters:
    """What one slot has counted since it was assigned."""
    directions, generation = {}, 0
    for direction, entry in limits_of(program, slot).items():
        seen, queue_ns = program.read_figures(class_id(slot, direction), entry.bits_per_second)
        if seen.generation != entry.generation:  # no packet since the slot was assigned
            seen, queue_ns = Counters(entry.generation, 0, 0, 0, 0), 0
        generation = entry.generation
        directions[direction] = DirectionCounters(
            entry.bits_per_second, seen.bytes, seen.packets, seen.drops, seen.marks, queue_ns
        )
    return PodCounters(owner.pod_uid, path, directions, generation)


def slots_in(program: Program) -> SlotTable:
    """The assignments that the limits map holds, and the latest generation that the shaper has seen anywhere."""
    class_ids = [class_id(slot, direction) for slot in range(1, program.slots + 1) for direction in Direction]
    latest = max(program.read_counters(each).generation for each in class_ids)
    table = SlotTable(program.slots, last_generation=latest)
    for slot in range(1, program.slots + 1):
        for entry in limits_of(program, slot).values():
            table.adopt(SlotOwner(entry.pod_uid, entry.netns_inode), Assignment(slot, entry.generation))
    return table
