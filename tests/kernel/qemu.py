"""Runs a command on a Debian kernel in QEMU, emulated: no KVM is needed, and there are several CPUs and BPF's JIT.

The guest sees the machine's files (9p, read-only). The kernels are those that tests/setup/kernels.sh fetches.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.guest import INIT, GuestLostError, GuestNotUpError, encoded, stream

NOISE = re.compile(r"^\s*$|\x1b|reboot: Power down")
CACHE = Path(os.environ.get("IPVLAN_BANDWIDTH_CACHE") or Path.home() / ".cache/ipvlan-bandwidth") / "kernels"
BOOTS = 3
LONGEST_COMMAND_LINE = 2047  # COMMAND_LINE_SIZE of x86, less its end


@dataclass(frozen=True, slots=True)
class Qemu:
    """A guest to be: the kernel's name in the cache, modules to load, CPUs, memory in MiB."""

    kernel: str
    modules: tuple[str, ...] = ()
    cpus: int = 4
    memory_mib: int = 2048
    timeout_seconds: int = 3600

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
        emulator = shutil.which("qemu-system-x86_64")
        if emulator is None:
            raise GuestLostError("no qemu-system-x86_64: install Debian's qemu-system-x86")
        files = CACHE / self.kernel
        if not (files / "initramfs").exists():
            raise GuestLostError(f"no kernel in {files}: run tests/setup/kernels.sh {self.kernel}")
        inside = {
            **environment,
            "EMULATED": "1",
            "SHARED_MOUNT": "-t 9p -o ro,trans=virtio,version=9p2000.L,msize=65536,cache=none shared",
        }
        arguments = [
            *(emulator, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"),
            *("-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"),
            *("-smp", str(self.cpus), "-m", str(self.memory_mib)),
            *("-kernel", str(files / "vmlinuz"), "-initrd", str(files / "initramfs")),
            *("-append", self._command_line(encoded(command, inside, folder))),
            *_mountable("root", Path("/")),
            *_mountable("shared", shared),
        ]
        # An emulator with a thread for each CPU seldom sees what one CPU patches in the code that another runs: the
        # kernel then dies of a stray int3 while it boots.
        for _ in range(BOOTS - 1):
            try:
                return self._boot(arguments, tell)
            except GuestNotUpError:
                tell("the kernel did not boot: once more")
        return self._boot(arguments, tell)

    def _boot(self, arguments: list[str], tell: Callable[[str], None]) -> int:
        return stream(arguments, timeout_seconds=self.timeout_seconds, environment=os.environ, noise=NOISE, tell=tell)

    def _command_line(self, command: str) -> str:
        words = (
            "console=ttyS0 quiet loglevel=2 panic=-1",
            # The emulated TSC runs steadily on all CPUs; the kernel cannot know, and other clocks are slow to read.
            "clocksource=tsc tsc=reliable",
            "mitigations=off random.trust_cpu=on",
            f"GUEST_INIT={INIT}",
            f"GUEST_MODULES_FOLDER={CACHE / self.kernel}",
            f"GUEST_MODULES={','.join(self.modules)}",
            f"GUEST_COMMAND={command}",
        )
        line = " ".join(words)
        if len(line) > LONGEST_COMMAND_LINE:
            raise GuestLostError(f"the command is too long for the kernel's command line: {len(line)} bytes")
        return line


def _mountable(tag: str, folder: Path) -> tuple[str, ...]:
    options = f"local,id={tag},path={folder},security_model=none,readonly=on,multidevs=remap"
    return ("-fsdev", options, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}")
