"""Shaping Pods: from a Pod's uid, its network namespace and its limits to what the kernel holds, and back.

Synchronous: call it from one thread. All changes are planned (`reconciler.plan`) from what the kernel holds at that
moment, so a second call changes nothing, and what others removed is restored.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from os import fstat
from pathlib import Path
from time import monotonic
from typing import Final, Self

from reconciler.bypass import Sample, sample, total
from reconciler.counters import PodCounters, slots_in
from reconciler.kernel import netns, traffic
from reconciler.kernel.apply import apply
from reconciler.kernel.bpf import LoadedProgram
from reconciler.kernel.errors import (
    HostNetnsError,
    KernelLacksError,
    NetlinkError,
    NetnsGoneError,
    ShapingError,
    StepFailedError,
    defects_told,
)
from reconciler.kernel.netlink import Netlink
from reconciler.kernel.observe import observe_netns
from reconciler.kernel.program import Program
from reconciler.migration import clear_left, migrate_state, older_buckets
from reconciler.model import (
    LINK_HEADER_BYTES,
    Bucket,
    DesiredShaping,
    LimitEntry,
    ObservedShaping,
    Problem,
    ProblemKind,
    covered,
)
from reconciler.netns_scan import NetnsScan, scan_netns
from reconciler.plan import plan
from reconciler.program_record import ProgramRecord
from reconciler.sandboxes import Key
from reconciler.slot_allocator import SlotAllocator
from reconciler.slots import Assignment, SlotOwner, SlotTable
from reconciler.steps import AttachRedirect, ClearLimit, CreateIfb, Plan, SetRoot, Step, WriteLimit
from webhook.common.contract import Direction, Limits

logger = logging.getLogger(__name__)
LACK_LASTS_S: Final = 0.9
"""The kernel notifies of a filter even if it then refuses it. The reconcile for that notification comes sooner than
this, and the retry of the failure later (`reconciler.backoff` has both): else the filter would be tried for ever."""


@dataclass(frozen=True, slots=True)
class ShapingOutcome:
    """The result of shaping one Pod. No steps: nothing had to change. `interfaces` are those that share its limits.

    `modes` are those of the ipvlan interfaces among them, by name: a mode is the master's, so other Pods share it.
    `indexes` are theirs, `others` the names of other interfaces, by index: also of those that were not looked at.

    `missing`: the directions that were asked for but do not hold on all interfaces, with those where they do not.
    `lack`: what the kernel lacks, so that a direction had to be left out; a later try may find it there.
    `slot_freed`: whether it had a slot before, which others may take now.
    """

    steps: tuple[Step, ...]
    problems: tuple[Problem, ...]
    interfaces: tuple[str, ...]
    missing: Mapping[Direction, tuple[str, ...]] = field(default_factory=dict)
    lack: KernelLacksError | None = None
    modes: Mapping[str, str] = field(default_factory=dict)
    slot_freed: bool = False
    indexes: frozenset[int] = frozenset()
    others: Mapping[int, str] = field(default_factory=dict)


class _CannotSplitError(StepFailedError):
    """The kernel lacks what splits packets."""


class _CannotRedirectError(StepFailedError):
    """The kernel lacks what redirects ingress to the ifb, where it is limited."""

    def __init__(self, step: Step, lack: KernelLacksError) -> None:
        self.lack = lack
        super().__init__(step, str(lack))


class Shaper:
    """All limited Pods of the node. Holds the program's descriptors, and nothing of any Pod's netns."""

    def __init__(self, program: Program, slots: SlotTable, found: NetnsScan, *, adopted: bool) -> None:
        self._program = program
        self._allocator = SlotAllocator(program, slots, found.paths)
        self._changes: dict[SlotOwner, int] = {}
        self._lacks: dict[SlotOwner, tuple[float, KernelLacksError]] = {}
        self.adopted = adopted
        self.found = found.held

    @classmethod
    def start(
        cls,
        *,
        slots: int,
        netns_paths: Iterable[Key] = (),
        folder: Path | None = None,
        load: Callable[[int], Program] | None = None,
        record: ProgramRecord | None = None,
    ) -> Self:
        """Take over what the network namespaces of the known sandboxes hold, or load a new program.

        `folder` may have other namespaces, whose owner is read from what they hold. `load` loads a new program. Only
        programs on `record` are taken over or tell of owners, and a new one is added to it. Raises ShapingError when
        loading fails.
        """
        recorded = frozenset[LoadedProgram]() if record is None else record.programs()
        found = scan_netns(netns_paths, folder, recorded)
        program = next(filter(None, (Program.adopt(each, slots, recorded) for each in found.program_ids)), None)
        if program is None:
            program = (load or Program.load)(slots)
            if record is not None:
                record.add(program)
            return cls(program, SlotTable(slots), found, adopted=False)
        try:
            return cls(program, slots_in(program), found, adopted=True)
        except BaseException:
            program.close()  # starting is retried: do not leak descriptors
            raise

    def shape(self, pod_uid: str, netns_path: str, limits: Limits) -> ShapingOutcome:
        """Make the Pod's netns hold exactly these limits; without limits, nothing of ours. Idempotent.

        Raises NetnsGoneError, HostNetnsError, NoSlotLeftError, KernelLacksError, StepFailedError or ShapingError.
        """
        with netns.opened(netns_path) as descriptor, Netlink.inside(descriptor) as netlink:
            owner = SlotOwner(pod_uid, fstat(descriptor).st_ino)
            had_slot = owner in self._allocator.taken
            if limits:
                self._allocator.assign(owner, netns_path)
            older = set[Bucket]()
            try:
                outcome = self._shape(owner, netlink, limits, older)
            finally:
                self._clear_left(owner, netlink, older)
        unused = any(problem.kind is ProblemKind.NO_IPVLAN for problem in outcome.problems)
        if not limits or unused:
            self._free(owner)
            return replace(outcome, slot_freed=had_slot)
        return outcome

    def release(self, pod_uid: str, netns_path: str) -> bool:
        """The Pod, or this sandbox, is gone: remove all of ours from its netns if it still exists, free its slot.

        Returns whether it had one.
        """
        taken = len(self._allocator.taken)
        try:
            if not self._allocator.is_reused(pod_uid, netns_path):
                with defects_told():  # here, as the slot is freed whatever a Pod has done to its netns
                    self.shape(pod_uid, netns_path, Limits())
        except (NetnsGoneError, HostNetnsError):
            pass
        except ShapingError as error:
            logger.warning(
                "not all was taken out of a netns, which goes with it",
                extra={"pod_uid": pod_uid, "netns": netns_path, "error": str(error)},
            )
        for owner in self._allocator.of(pod_uid, netns_path):
            self._free(owner)
        return len(self._allocator.taken) < taken

    def collect(self, live: Mapping[Key, int | None]) -> int:
        """Free the slots of those that are not live, as `inodes` has them, and whose netns is gone. Returns how many.

        Raises ShapingError, and frees none, when the existing network namespaces cannot be listed.
        """
        gone = self._allocator.gone(live)
        for owner in gone:
            self._free(owner)
        return len(gone)

    def audit(self) -> list[str]:
        """The uids of the Pods whose limits in the map were overwritten by others: shape them again.

        Entries that others wrote into a slot without an owner are cleared here.
        """
        return self._allocator.audit()

    def sample(self, pod_uid: str, netns_path: str, interfaces: Collection[str]) -> Sample | None:
        """What the Pod has sent past its egress limit so far (`reconciler.bypass`); None without such a limit.

        Raises NetnsGoneError, HostNetnsError or ShapingError.
        """
        with netns.opened(netns_path) as descriptor, Netlink.inside(descriptor) as netlink:
            owner = SlotOwner(pod_uid, fstat(descriptor).st_ino)
            assignment = self._allocator.taken.get(owner)
            if assignment is None or Direction.EGRESS not in self._allocator.limits(owner):
                return None
            charged = self._allocator.charged(assignment)
            try:
                queued = traffic.queued(netlink)
                sent = traffic.sent(netlink, interfaces)
                queued_after = traffic.queued(netlink)
            except NetlinkError as error:
                raise ShapingError(f"cannot read what the Pod's links have sent: {error.text}") from error
        return sample(
            (assignment.generation, self._changes.get(owner, 0), frozenset(sent.by_link)),
            charged=(charged, self._allocator.charged(assignment)),
            queued=(total(queued, sent.by_link), total(queued_after, sent.by_link)),
            sent=total(sent.by_link, sent.by_link),
            largest_bytes=sent.largest_mtu + LINK_HEADER_BYTES,
            has_tunnel=sent.has_tunnel,
        )

    def inodes(self, keys: Iterable[Key]) -> dict[Key, int | None]:
        """The inodes of the network namespaces, None for one that is gone. Raises ShapingError if that is unknown."""
        return {key: netns.inode(key[1]) for key in keys}

    def slot_owners(self) -> list[SlotOwner]:
        """The owners of slots."""
        return list(self._allocator.taken)

    def counters(self, owners: Iterable[SlotOwner] | None = None) -> list[PodCounters]:
        """The kernel's counters of these owners, or of all, as far as they have a slot. Raises ShapingError."""
        return self._allocator.counters(owners)

    def close(self) -> None:
        """Let go of the program; the kernel goes on shaping."""
        self._program.close()

    def _free(self, owner: SlotOwner) -> None:
        self._allocator.free(owner)
        self._changes.pop(owner, None)
        self._lacks.pop(owner, None)

    def _shape(self, owner: SlotOwner, netlink: Netlink, limits: Limits, older: set[Bucket]) -> ShapingOutcome:
        """`older` receives the buckets of other programs that were found in use."""
        done: list[Step] = []
        lack, failed = self._recent_lack(owner) if limits.ingress else None, False
        desired = replace(self._desired(owner, limits), may_redirect=lack is None)
        approached: tuple[ObservedShaping, Plan] | None = None
        while approached is None:
            try:
                approached = self._approach(owner, netlink, desired, done, older)
            # Both are tried again each time, as a module may be loaded meanwhile. The kernel check informs the Node.
            except _CannotSplitError as error:
                logger.info("limiting without splitting packets", extra={"pod_uid": owner.pod_uid, "error": str(error)})
                desired = replace(desired, may_split=False)
            except _CannotRedirectError as error:
                lack, desired = error.lack, replace(desired, may_redirect=False)
                self._lacks[owner] = monotonic(), lack
            except StepFailedError as error:
                # Others may have changed something between observing and applying: observe once more, then give up.
                if failed:
                    raise
                logger.info("looking again after a step failed", extra={"pod_uid": owner.pod_uid, "error": str(error)})
                failed = True
        if done:
            self._changes[owner] = self._changes.get(owner, 0) + 1
        if lack is not None and limits.egress is None:
            raise lack
        observed, planned = approached
        shared = covered(observed.links)
        return ShapingOutcome(
            tuple(done),
            planned.problems,
            tuple(held.link.name for held in shared),
            planned.missing,
            lack,
            modes={held.link.name: held.link.mode for held in shared if held.link.mode is not None},
            indexes=frozenset(held.index for held in shared),
            others={
                **{held.index: held.link.name for held in observed.links if held not in shared},
                **observed.unseen_others,
            },
        )

    def _recent_lack(self, owner: SlotOwner) -> KernelLacksError | None:
        """What the kernel lacked a moment ago, when ingress was to be limited."""
        since_s, lack = self._lacks.get(owner, (0.0, None))
        if monotonic() - since_s < LACK_LASTS_S:
            return lack
        self._lacks.pop(owner, None)
        return None

    def _approach(
        self, owner: SlotOwner, netlink: Netlink, desired: DesiredShaping, done: list[Step], older: set[Bucket]
    ) -> tuple[ObservedShaping, Plan]:
        """Observe, plan, apply. The steps that succeed are added to `done`."""
        observed = self._observe(owner, netlink)
        older.update(older_buckets(observed.links, self._program))
        planned = plan(desired, observed)
        if desired.limits and planned.steps:
            self._migrate_state(owner, observed)
        for step in planned.steps:
            self._do(step, netlink)
            done.append(step)
        return observed, planned

    def _migrate_state(self, owner: SlotOwner, observed: ObservedShaping) -> None:
        try:
            migrate_state(observed.links, self._program, owner, self._allocator.taken[owner])
        except OSError as error:
            logger.warning("a Pod's queue begins anew", extra={"pod_uid": owner.pod_uid, "error": str(error)})

    def _clear_left(self, owner: SlotOwner, netlink: Netlink, older: set[Bucket]) -> None:
        try:
            if older:
                clear_left(older.difference(older_buckets(self._observe(owner, netlink).links, self._program)), owner)
        except (OSError, ShapingError) as error:
            logger.warning(
                "an older program keeps a Pod's limits", extra={"pod_uid": owner.pod_uid, "error": str(error)}
            )

    def _desired(self, owner: SlotOwner, limits: Limits) -> DesiredShaping:
        assignment = self._allocator.taken.get(owner, Assignment(0, 0))
        wanted = {
            direction: LimitEntry(quantity.bits_per_second, assignment.generation, owner.pod_uid, owner.netns_inode)
            for direction in Direction
            if (quantity := limits.get(direction))
        }
        return DesiredShaping(assignment.slot, self._program.program_id, self._program.attached.filter_name, wanted)

    def _observe(self, owner: SlotOwner, netlink: Netlink) -> ObservedShaping:
        try:
            observed = observe_netns(netlink)
        except NetlinkError as error:
            raise ShapingError(f"cannot list what the Pod's network namespace holds: {error.text}") from error
        return replace(observed, limits=self._allocator.limits(owner)) if owner in self._allocator.taken else observed

    def _do(self, step: Step, netlink: Netlink) -> None:
        if isinstance(step, WriteLimit | ClearLimit):
            self._allocator.write(step)
            return
        try:
            apply(step, netlink, self._program.attached)
        except KernelLacksError as error:
            if isinstance(step, CreateIfb | AttachRedirect):
                raise _CannotRedirectError(step, error) from error
            if not isinstance(step, SetRoot) or step.splitting is None:
                raise
            raise _CannotSplitError(step, str(error)) from error
