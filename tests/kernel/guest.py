"""What user-mode-linux and QEMU have in common: the command as the guest gets it, and its output and exit status."""

import base64
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

INIT = Path(__file__).with_name("init.sh")
UP = "guest is up"
EXIT_STATUS = re.compile(r"^guest exit status (\d+)")


class GuestLostError(Exception):
    """The guest ended without telling its command's exit status: no test result, good or bad."""


class GuestNotUpError(GuestLostError):
    """It ended, by itself, before its command began."""


class Guest(Protocol):
    """A kernel that runs a command with the machine's files in sight, and writes to none of them."""

    def run(
        self,
        command: Iterable[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        shared: Path,
        tell: Callable[[str], None],
    ) -> int:
        """Boot, run the command in `folder`, halt. Its output goes to `tell`; returns the command's exit status.

        `shared` is a folder of changing files: the guest mounts it by the words in $SHARED_MOUNT.
        """


def encoded(command: Iterable[str], environment: Mapping[str, str], folder: Path) -> str:
    """The command as init.sh takes it."""
    settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
    here = shlex.quote(str(folder))
    # The guest's /tmp and the like are its own: a folder below them is mounted where it was.
    mount = f"[ -d {here} ] || {{ mkdir -p {here} && mount --bind /run/host{here} {here}; }}"
    script = f"{mount}; cd {here} && exec env {settings} {shlex.join(command)}"
    return base64.b64encode(script.encode()).decode()


def stream(
    arguments: Sequence[str],
    *,
    timeout_seconds: int,
    environment: Mapping[str, str],
    noise: re.Pattern[str],
    tell: Callable[[str], None],
) -> int:
    """Run the guest. Raises GuestLostError, or GuestNotUpError."""
    status: int | None = None
    is_up = False
    command = ["timeout", "--kill-after=5", str(timeout_seconds), *arguments]
    began = time.monotonic()
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
                elif line == UP:
                    is_up = True
                elif not noise.search(line):
                    tell(line)
        finally:
            process.terminate()
    if status is None and time.monotonic() - began >= timeout_seconds:
        raise GuestLostError(f"the guest took longer than {timeout_seconds} s and was killed")
    if not is_up:
        raise GuestNotUpError("the guest ended before its command began")
    if status is None:
        raise GuestLostError("the guest ended before its command did")
    return status
