"""Runs a command inside user-mode-linux: a real Linux kernel as a process, without KVM and without root's network.

The guest sees the machine's files (hostfs) and writes to none of them. Generic: what runs inside is the caller's.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.guest import INIT, GuestLostError, encoded, stream

NOISE = re.compile(r"SELinux|mmapper|ubd|^Core dump limits|reboot: System halted|^\s*$")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - user-mode-linux makes and unlinks its file safely
MOUNTS = Path("/proc/self/mounts")
# The kernel itself is in the file of its memory too.
MORE_MIB = 64


@dataclass(frozen=True, slots=True)
class UserModeLinux:
    """A guest to be: memory in MiB, modules to load, further arguments of the kernel (network cards, disks)."""

    memory_mib: int = 1024
    modules: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    timeout_seconds: int = 900

    def run(
        self,
        command: Iterable[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        shared: Path,
        tell: Callable[[str], None],
    ) -> int:
        """As Guest.run."""
        kernel = shutil.which("linux.uml")
        if kernel is None:
            raise GuestLostError("no linux.uml: install Debian's user-mode-linux")
        inside = {**environment, "SHARED_MOUNT": f"-t hostfs -o {shared} shared"}
        with tempfile.TemporaryDirectory(prefix="uml-") as state:
            arguments = [
                kernel,
                f"mem={self.memory_mib}M",
                f"uml_dir={state}",
                "umid=guest",
                "rootfstype=hostfs",
                "rootflags=/",
                "ro",
                "quiet",
                "con=null",
                "con0=fd:0,fd:1",
                f"init={INIT}",
                f"GUEST_COMMAND={encoded(command, inside, folder)}",
                f"GUEST_MODULES={','.join(self.modules)}",
                *self.arguments,
            ]
            return stream(
                arguments,
                timeout_seconds=self.timeout_seconds,
                environment={**os.environ, "TMPDIR": str(folder_of_memory(Path(state), self.memory_mib))},
                noise=NOISE,
                tell=tell,
            )


def folder_of_memory(otherwise: Path, memory_mib: int) -> Path:
    """Where the guest's memory is a file: on a disk's file system the machine writes out what changes, again and again.

    On /dev/shm, unless that is no tmpfs, is mounted noexec, or has too little room, as a container's may: the guest
    would not start, or die when the room is used up.
    """
    mounts = [line.split() for line in MOUNTS.read_text().splitlines()]
    kinds = [kind for _, where, kind, *_ in mounts if where == str(SHARED_MEMORY)]
    if kinds[-1:] != ["tmpfs"] or not os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
        return otherwise
    found = os.statvfs(SHARED_MEMORY)
    has_room = found.f_bavail * found.f_frsize >= (memory_mib + MORE_MIB) << 20
    return SHARED_MEMORY if has_room and not found.f_flag & os.ST_NOEXEC else otherwise
