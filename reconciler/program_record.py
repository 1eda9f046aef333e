"""The record of the programs that reconcilers loaded on this node, by which a restarted one knows them again.

A program's name proves nothing: a Pod with CAP_BPF and CAP_NET_ADMIN can load one of the same name and attach it in its
own network namespace. Adopted, it would be put on all Pods' packets. So only programs on record are adopted; any other
costs a compile, and Pods are moved from it as in an upgrade.

The file is in the folder of the runtime's socket, which only root of the node can write, and whose lock the one
reconciler at work holds (`node_lock`). The kernel counts programs anew at each boot, and comes round to an id after
2^31 programs: so the record is of one boot, and has the time of loading too.
"""

import logging
import os
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

from reconciler.kernel.bpf import Bpf, LoadedProgram
from reconciler.kernel.program import Program

logger = logging.getLogger(__name__)
NAME: Final = "ipvlan-bandwidth.programs"
_NEW_NAME: Final = f"{NAME}.new"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_MOST_BYTES: Final = 4096
_MOST_PROGRAMS: Final = 32
"""More than there are: versions that still shape a Pod. Their lines are far shorter than the file may be."""


class ProgramRecord:
    """The file, read and written by the reconciler that holds the node's lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def programs(self) -> frozenset[LoadedProgram]:
        """The programs on record. None when the file is missing, not as we write it, or another boot's."""
        return frozenset(self._read())

    def add(self, program: Program) -> None:
        """Record a program; those that are no more are forgotten. What fails is logged: shaping goes on."""
        try:
            older = [each for each in self._read() if _is_loaded(program.bpf, each)]
            self._write([*older[1 - _MOST_PROGRAMS :], program.bpf.program_info(program.descriptor).loaded])
        except OSError as error:
            logger.warning(
                "cannot record the shaper's program: the next reconciler will not know it, so it compiles one anew and"
                " moves all Pods to it. Mount the folder of --nri-socket writable (volume nri of the DaemonSet)",
                extra={"folder": str(self._folder), "error": str(error)},
            )

    def remove(self) -> list[Path]:
        """Remove the file, and what a killed reconciler left of a new one; which of them were there. Raises OSError."""
        removed = []
        for path in (self._folder / NAME, self._folder / _NEW_NAME):
            with suppress(FileNotFoundError):
                path.unlink()
                removed.append(path)
        return removed

    def _read(self) -> list[LoadedProgram]:
        try:
            return _parsed(_contents(self._folder / NAME))
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            logger.warning(
                "the record of the shaper's programs cannot be read: none of them is adopted",
                extra={"folder": str(self._folder), "error": str(error)},
            )
            return []

    def _write(self, programs: Collection[LoadedProgram]) -> None:
        """In place of the old file at once. Not synced: what a crash of the node takes is of no use after it."""
        lines = [_boot_id(), *(f"{each.program_id} {each.loaded_ns}" for each in programs)]
        new = self._folder / _NEW_NAME
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write("\n".join([*lines, ""]))
        new.replace(self._folder / NAME)


def _contents(path: Path) -> str:
    """Raises ValueError when it is no file of ours, or too long."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        held = os.fstat(descriptor)
        if not stat.S_ISREG(held.st_mode) or held.st_uid != os.geteuid() or held.st_mode & 0o077:
            raise ValueError("it is not a file of this user alone")
        contents = file.read(_MOST_BYTES + 1)
    if len(contents) > _MOST_BYTES:
        raise ValueError(f"it is longer than {_MOST_BYTES} bytes")
    return contents.decode("ascii")


def _parsed(contents: str) -> list[LoadedProgram]:
    """Empty for another boot's record. Raises ValueError when it is not as we write it."""
    boot_id, *lines = contents.splitlines() or [""]
    if boot_id != _boot_id():
        return []
    programs = []
    for line in lines:
        program_id, loaded_ns = line.split(" ")
        programs.append(LoadedProgram(int(program_id), int(loaded_ns)))
    return programs


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()


def _is_loaded(bpf: Bpf, program: LoadedProgram) -> bool:
    """Whether the kernel still has it; True if that cannot be known at the moment."""
    try:
        descriptor = bpf.program_by_id(program.program_id)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return bpf.program_info(descriptor).loaded == program
    except OSError:
        return True
    finally:
        os.close(descriptor)
