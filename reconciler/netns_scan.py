"""Scans what the network namespaces of this node's Pods hold when the reconciler starts: all that it knows of its past.

Programs of other versions are read too: a Pod that one of them shapes keeps its limit until it is moved to ours, even
if its annotation has become invalid meanwhile, and loses it if the annotation has been removed.
"""

import logging
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from errno import ENOMEM
from os import fstat
from pathlib import Path
from typing import NamedTuple

from reconciler.counters import in_force
from reconciler.kernel import netns
from reconciler.kernel.bpf import LoadedProgram
from reconciler.kernel.errors import NetnsGoneError, ShapingError
from reconciler.kernel.netlink import Netlink
from reconciler.kernel.observe import observe_netns
from reconciler.kernel.program import Program
from reconciler.model import LimitEntry, ObservedLink, bucket_of, buckets
from reconciler.sandboxes import Key
from reconciler.slots import SlotOwner
from webhook.common.contract import Direction, Limits

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NetnsScan:
    """`held` has the network namespaces that hold anything of ours, or could not be read, with their limits.

    The limits are those in force; None if the netns, or the limits of the program that shapes it, cannot be read.
    The uid is empty if it was not given and cannot be read either.
    `program_ids` are the programs that shape any netns.
    """

    paths: Mapping[SlotOwner, str] = field(default_factory=dict)
    program_ids: tuple[int, ...] = ()
    held: Mapping[Key, Limits | None] = field(default_factory=dict)


def scan_netns(
    netns_paths: Iterable[Key], folder: Path | None = None, recorded: Collection[LoadedProgram] = ()
) -> NetnsScan:
    """Look into each network namespace; one that cannot be read is logged.

    The same for others in a folder: some runtimes do not name the netns of a Pod that another version of the runtime
    started. The maps hold the owners' uids: only those of programs `recorded` are believed, as a Pod may attach one of
    its own that names another Pod. Without any on record, as at the first start on a node, all are.
    """
    with ExitStack() as opened:
        scanner = _Scanner(opened, recorded)
        for pod_uid, path in netns_paths:
            scanner.scan(path, pod_uid)
        if folder is not None:
            named = {owner.netns_inode for owner in scanner.paths}
            for inode, path in _mounted(folder).items():
                if inode not in named:
                    scanner.scan(path)
        return NetnsScan(scanner.paths, tuple(scanner.programs), scanner.held)


def program_ids(folder: Path) -> Generator[int]:
    """The programs that shape any netns in a folder, one by one: a caller that needs one need not scan all."""
    with ExitStack() as opened:
        scanner = _Scanner(opened)
        told: set[int] = set()
        for path in _mounted(folder).values():
            scanner.scan(path)
            yield from scanner.programs.keys() - told
            told |= scanner.programs.keys()


class _Entry(NamedTuple):
    """An entry that a filter leads to. `is_believed`: whether it tells whose the netns is."""

    direction: Direction
    limit: LimitEntry
    is_believed: bool


@dataclass(slots=True)
class _Scanner:
    """What was found so far; the programs stay open as long as `opened` is."""

    opened: ExitStack
    recorded: Collection[LoadedProgram] = ()
    paths: dict[SlotOwner, str] = field(default_factory=dict)
    held: dict[Key, Limits | None] = field(default_factory=dict)
    programs: dict[int, Program | None] = field(default_factory=dict)
    believed: set[int] = field(default_factory=set)

    def scan(self, path: str, pod_uid: str | None = None) -> None:
        """Look into one netns; without a uid, its owner is looked for in the maps' entries."""
        try:
            with netns.opened(path) as descriptor, Netlink.inside(descriptor) as netlink:
                inode = fstat(descriptor).st_ino
                links = observe_netns(netlink).links
        except NetnsGoneError:
            return
        except Exception as error:  # noqa: BLE001 - what a Pod does to its netns must cost no other Pod anything
            logger.warning("cannot look into a netns", extra={"netns": path, "error": str(error)})
            self.held[Key(pod_uid or "", path)] = None
            return
        entries, are_all = self._entries(path, links)
        told = (each.limit.pod_uid for each in entries if each.is_believed and each.limit.netns_inode == inode)
        owner = pod_uid or next(told, None)
        is_touched = any(link.is_touched for link in links)
        if owner is None:
            if is_touched:
                self.held[Key("", path)] = None
            return
        self.paths[SlotOwner(owner, inode)] = path
        if is_touched:
            rates = {each.direction: each.limit.bits_per_second for each in entries if each.limit.pod_uid == owner}
            self.held[Key(owner, path)] = in_force(rates) if are_all else None

    def _entries(self, path: str, links: Iterable[ObservedLink]) -> tuple[list[_Entry], bool]:
        """The entries of the filters in their programs' maps, and whether all could be read.

        Raises OSError when that fails for lack of memory, and so says nothing of the filters.
        """
        found: list[_Entry] = []
        are_all = True
        for program_id, class_id in buckets(links):
            program = self._program(program_id)
            if program is None:
                are_all = False
                continue
            try:
                entry = program.read_limit(class_id)
            except OSError as error:
                if error.errno == ENOMEM:
                    raise
                # A filter that a Pod made itself may lead anywhere, which must cost no other Pod anything.
                logger.warning("cannot read a netns' limits", extra={"netns": path, "error": str(error)})
                are_all = False
                continue
            if entry is not None:
                _, direction = bucket_of(class_id)
                found.append(_Entry(direction, entry, program_id in self.believed))
        return found, are_all

    def _program(self, program_id: int) -> Program | None:
        if program_id not in self.programs:
            self.programs[program_id] = Program.adopt(program_id)
            if (program := self.programs[program_id]) is not None:
                self.opened.enter_context(closing(program))
                if not self.recorded or program.bpf.program_info(program.descriptor).loaded in self.recorded:
                    self.believed.add(program_id)
        return self.programs[program_id]


def _mounted(folder: Path) -> dict[int, str]:
    try:
        return netns.mounted(folder)
    except ShapingError as error:
        logger.warning(
            "Pods whose network namespace the runtime does not name are not looked for", extra={"error": str(error)}
        )
        return {}
