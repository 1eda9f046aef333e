"""Shaping Pods: from a Pod's uid, its network namespace and its limits to what the kernel holds, and back.

Synchronous: call it from one thread. Whatever it does is planned first (`reconciler.plan`) from what the kernel holds
at that moment, so doing it again does nothing, and what somebody else removed comes back.
"""

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from os import fstat
from typing import Final, Self

from reconciler.bypass import Sample, Traffic, sample, total
from reconciler.counters import DirectionCounters, PodCounters, limits_of, pod_counters
from reconciler.inspection import Inspection, clean, inspect
from reconciler.kernel import netns, traffic
from reconciler.kernel.apply import apply
from reconciler.kernel.errors import (
    HostNetnsError,
    KernelLacksError,
    NetlinkError,
    NetnsGoneError,
    NoSlotLeftError,
    ShapingError,
    StepFailedError,
)
from reconciler.kernel.netlink import Netlink
from reconciler.kernel.observe import observe_links
from reconciler.kernel.program import Program
from reconciler.model import (
    DesiredShaping,
    LimitEntry,
    ObservedLink,
    ObservedShaping,
    Problem,
    ProblemKind,
    class_id,
    covered,
)
from reconciler.plan import plan
from reconciler.slots import Assignment, NoFreeSlotError, SlotTable, Tenant
from reconciler.steps import ClearLimit, Plan, Step, WriteLimit
from webhook.contract import Direction, Limits

__all__ = [
    "DirectionCounters",
    "HostNetnsError",
    "Inspection",
    "KernelLacksError",
    "NetnsGoneError",
    "NoSlotLeftError",
    "Outcome",
    "PodCounters",
    "Shaper",
    "ShapingError",
    "StepFailedError",
    "clean",
    "inspect",
]

LINK_HEADER_BYTES: Final = 14
"""Of Ethernet, which ipvlan and veth are."""
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of shaping one Pod. No steps: nothing had to change. `interfaces` are those that limits hold on."""

    steps: tuple[Step, ...]
    problems: tuple[Problem, ...]
    interfaces: tuple[str, ...]


class Shaper:
    """All limited Pods of the node. Holds the program's descriptors, and nothing of any Pod's netns."""

    def __init__(self, program: Program, slots: SlotTable, paths: Mapping[Tenant, str], *, adopted: bool) -> None:
        self._program = program
        self._slots = slots
        self._paths = dict(paths)
        self._changes: dict[Tenant, int] = {}
        self.adopted = adopted

    @classmethod
    def start(cls, *, slots: int = 256, netns_paths: Iterable[tuple[str, str]] = ()) -> Self:
        """Take over what the network namespaces of the known sandboxes hold, or load a new program.

        `netns_paths` are pairs of Pod uid and path. Raises ShapingError when no program can be loaded.
        """
        paths: dict[Tenant, str] = {}
        program_ids: list[int] = []
        for pod_uid, path in netns_paths:
            try:
                with netns.opened(path) as descriptor, Netlink.inside(descriptor) as netlink:
                    paths[Tenant(pod_uid, fstat(descriptor).st_ino)] = path
                    program_ids += _program_ids(observe_links(netlink))
            except (ShapingError, NetlinkError) as error:
                _LOG.warning("not looked into %s: %s", path, error)
        program = Program.adopt(slots, program_ids)
        if program is not None:
            return cls(program, _slots_in(program), paths, adopted=True)
        return cls(Program.load(slots), SlotTable(slots), paths, adopted=False)

    def shape(self, pod_uid: str, netns_path: str, limits: Limits) -> Outcome:
        """Make the Pod's netns hold exactly these limits; without limits, nothing of ours. Idempotent.

        Raises NetnsGoneError, HostNetnsError, NoSlotLeftError, KernelLacksError or StepFailedError.
        """
        with netns.opened(netns_path) as descriptor, Netlink.inside(descriptor) as netlink:
            tenant = Tenant(pod_uid, fstat(descriptor).st_ino)
            if limits:
                self._assign(tenant)
                self._paths[tenant] = netns_path
            outcome = self._shape(tenant, netlink, limits)
        unused = any(problem.kind is ProblemKind.NO_IPVLAN for problem in outcome.problems)
        if not limits or unused:
            self._free(tenant)
        return outcome

    def release(self, pod_uid: str, netns_path: str) -> None:
        """The Pod, or this sandbox of it, is gone: take ours out of its netns if that still exists, free its slot."""
        try:
            self.shape(pod_uid, netns_path, Limits())
        except (NetnsGoneError, HostNetnsError):
            pass
        except ShapingError as error:
            _LOG.warning("not all was taken out of %s, which goes with it: %s", netns_path, error)
        for tenant in [held for held in self._slots.taken if held.pod_uid == pod_uid]:
            if self._paths.get(tenant, netns_path) == netns_path:
                self._free(tenant)

    def collect(self, live: Collection[tuple[str, str]]) -> int:
        """Free the slots of Pods that are not live and whose netns is gone. Returns how many."""
        alive = {Tenant(pod_uid, inode) for pod_uid, path in live if (inode := _inode(path))}
        present = netns.inodes() | {_inode(path) for path in self._paths.values()}
        gone = [held for held in self._slots.taken if held not in alive and held.netns_inode not in present]
        for tenant in gone:
            self._free(tenant)
        return len(gone)

    def audit(self) -> list[str]:
        """The uids of the Pods whose limits somebody else wrote into the map: shape them again.

        What somebody wrote into a slot that is nobody's is cleared here.
        """
        try:
            altered = {class_id // 2 for class_id in self._program.altered()}
        except OSError as error:
            raise ShapingError(f"cannot read the limits back from the kernel: {error.strerror}") from error
        tenants = {assignment.slot: tenant for tenant, assignment in self._slots.taken.items()}
        for slot in altered - tenants.keys():
            for direction in Direction:
                self._program.write_limit(class_id(slot, direction), None)
        return [tenants[slot].pod_uid for slot in sorted(altered & tenants.keys())]

    def sample(self, pod_uid: str, netns_path: str, interfaces: Collection[str]) -> Sample | None:
        """What the Pod has sent past its egress limit so far (`reconciler.bypass`); None without such a limit.

        Raises NetnsGoneError, HostNetnsError or ShapingError.
        """
        with netns.opened(netns_path) as descriptor, Netlink.inside(descriptor) as netlink:
            tenant = Tenant(pod_uid, fstat(descriptor).st_ino)
            assignment = self._slots.taken.get(tenant)
            if assignment is None or self._program.read_limit(class_id(assignment.slot, Direction.EGRESS)) is None:
                return None
            charged = self._charged(assignment)
            try:
                queued = traffic.queued(netlink)
                sent, largest_mtu = traffic.sent(netlink, interfaces)
                queued_after = traffic.queued(netlink)
            except NetlinkError as error:
                raise ShapingError(f"cannot read what the Pod's links have sent: {error.strerror}") from error
        return sample(
            (assignment.generation, self._changes.get(tenant, 0)),
            charged=(charged, self._charged(assignment)),
            queued=(total(queued, sent), total(queued_after, sent)),
            sent=total(sent, sent),
            largest_bytes=largest_mtu + LINK_HEADER_BYTES,
        )

    def counters(self) -> list[PodCounters]:
        """What the kernel counts, for every Pod that has a slot."""
        return [
            pod_counters(self._program, tenant, assignment.slot, self._paths.get(tenant))
            for tenant, assignment in self._slots.taken.items()
        ]

    def close(self) -> None:
        """Let go of the program; the kernel goes on shaping."""
        self._program.close()

    def _charged(self, assignment: Assignment) -> Traffic:
        """What the egress bucket was charged; nothing before its first packet."""
        seen = self._program.read_counters(class_id(assignment.slot, Direction.EGRESS))
        return Traffic(seen.bytes, seen.packets) if seen.generation == assignment.generation else Traffic()

    def _assign(self, tenant: Tenant) -> Assignment:
        try:
            self._slots, assignment = self._slots.assign(tenant)
        except NoFreeSlotError as error:
            message = f"{error}: more Pods with limits than slots on this node; raise the reconciler's number of slots"
            raise NoSlotLeftError(message) from error
        return assignment

    def _free(self, tenant: Tenant) -> None:
        assignment = self._slots.taken.get(tenant)
        if assignment is not None:
            for direction in Direction:
                self._program.write_limit(class_id(assignment.slot, direction), None)
        self._slots = self._slots.free(tenant)
        self._paths.pop(tenant, None)
        self._changes.pop(tenant, None)

    def _shape(self, tenant: Tenant, netlink: Netlink, limits: Limits) -> Outcome:
        done: list[Step] = []
        try:
            observed, planned = self._approach(tenant, netlink, limits, done)
        except StepFailedError as error:
            # Between looking and doing somebody else may have changed something: look once more, then give up.
            _LOG.info("looking again after a step failed: %s", error)
            observed, planned = self._approach(tenant, netlink, limits, done)
        if done:
            self._changes[tenant] = self._changes.get(tenant, 0) + 1
        names = tuple(target.link.name for target in covered(observed.links))
        return Outcome(tuple(done), planned.problems, names)

    def _approach(
        self, tenant: Tenant, netlink: Netlink, limits: Limits, done: list[Step]
    ) -> tuple[ObservedShaping, Plan]:
        """Look, plan, do. The steps that succeed are added to `done`."""
        observed = self._observe(tenant, netlink)
        planned = plan(self._desired(tenant, limits), observed)
        for step in planned.steps:
            self._do(step, netlink)
            done.append(step)
        return observed, planned

    def _desired(self, tenant: Tenant, limits: Limits) -> DesiredShaping:
        assignment = self._slots.taken.get(tenant, Assignment(0, 0))
        wanted = {
            direction: LimitEntry(quantity.bits_per_second, assignment.generation, tenant.pod_uid, tenant.netns_inode)
            for direction in Direction
            if (quantity := limits.get(direction))
        }
        return DesiredShaping(assignment.slot, self._program.program_id, self._program.attached.filter_name, wanted)

    def _observe(self, tenant: Tenant, netlink: Netlink) -> ObservedShaping:
        assignment = self._slots.taken.get(tenant)
        try:
            links = observe_links(netlink)
        except NetlinkError as error:
            raise ShapingError(f"cannot list what the Pod's network namespace holds: {error.strerror}") from error
        return ObservedShaping(links, limits_of(self._program, assignment.slot) if assignment else {})

    def _do(self, step: Step, netlink: Netlink) -> None:
        match step:
            case WriteLimit(slot=slot, direction=direction, entry=entry):
                self._program.write_limit(class_id(slot, direction), entry)
            case ClearLimit(slot=slot, direction=direction):
                self._program.write_limit(class_id(slot, direction), None)
            case _:
                apply(step, netlink, self._program.attached)


def _inode(path: str) -> int | None:
    try:
        return netns.inode(path) if path else None
    except (NetnsGoneError, HostNetnsError):
        return None


def _program_ids(links: Iterable[ObservedLink]) -> list[int]:
    filters = (held.ours(Direction.EGRESS) for held in links)
    return [held.program_id for held in filters if held is not None and held.program_id is not None]


def _slots_in(program: Program) -> SlotTable:
    """The assignments that the limits map holds, and the latest generation that the shaper has seen anywhere."""
    class_ids = [class_id(slot, direction) for slot in range(1, program.slots + 1) for direction in Direction]
    latest = max(program.read_counters(each).generation for each in class_ids)
    table = SlotTable(program.slots, last_generation=latest)
    for slot in range(1, program.slots + 1):
        for entry in limits_of(program, slot).values():
            table = table.adopt(Tenant(entry.pod_uid, entry.netns_inode), Assignment(slot, entry.generation))
    return table
