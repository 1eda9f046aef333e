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
                environment={**os.environ, "TMPDIR": state},
                noise=NOISE,
                tell=tell,
            )
