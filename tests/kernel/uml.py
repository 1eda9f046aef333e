"""Runs a command inside user-mode-linux: a real Linux kernel as a process, without KVM and without root's network.

The guest sees the machine's files (hostfs) and writes to none of them. Generic: what runs inside is the caller's.
"""

import base64
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

INIT = Path(__file__).with_name("init.sh")
NOISE = re.compile(r"SELinux|mmapper|ubd|^Core dump limits|^\s*$")
EXIT_STATUS = re.compile(r"^guest exit status (\d+)")


class GuestLostError(Exception):
    """The guest ended without telling its command's exit status: no test result, good or bad."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest to be: memory in MiB, modules to load, further arguments of the kernel (network cards, disks)."""

    memory_mib: int = 1024
    modules: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    timeout_seconds: int = 900

    def run(
        self,
        command: Iterable[str],
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path,
        show: Callable[[str], None] | None = None,
    ) -> int:
        """Boot, run the command in `folder`, halt; returns the command's exit status.

        Its output is streamed, line by line, to standard output or to `show`.
        """
        kernel = shutil.which("linux.uml")
        if kernel is None:
            raise GuestLostError("no linux.uml: install Debian's user-mode-linux")
        settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in (environment or {}).items())
        here = shlex.quote(str(folder))
        # The guest's /tmp and the like are its own: a folder below them is mounted where it was.
        mount = f"[ -d {here} ] || {{ mkdir -p {here} && mount -t hostfs -o {here} project {here}; }}"
        script = f"{mount}; cd {here} && exec env {settings} {shlex.join(command)}"
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
                f"GUEST_COMMAND={base64.b64encode(script.encode()).decode()}",
                f"GUEST_MODULES={','.join(self.modules)}",
                *self.arguments,
            ]
            return _stream(arguments, self.timeout_seconds, state, show or _print)


def _print(line: str) -> None:
    print(line, flush=True)


def _stream(arguments: list[str], timeout_seconds: int, state: str, show: Callable[[str], None]) -> int:
    status: int | None = None
    command = ["timeout", "--kill-after=5", str(timeout_seconds), *arguments]
    environment = {**os.environ, "TMPDIR": state}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip()
                found = EXIT_STATUS.match(line)
                if found:
                    status = int(found[1])
                elif not NOISE.search(line):
                    show(line)
        finally:
            process.terminate()
    if status is None:
        raise GuestLostError("the guest ended, or took too long, before its command did")
    return status
