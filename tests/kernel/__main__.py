"""The kernel tests by pytest inside a guest: user-mode-linux, or Debian's kernels under QEMU, one after the other.

`python -m tests.kernel [--kernel 5.10] [--kernel newest] [pytest arguments]`
"""

import argparse
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import steal
from tests.kernel.guest import Guest, GuestLostError
from tests.kernel.qemu import Qemu
from tests.kernel.uml import UserModeLinux

MODULES = (
    "ipvlan",
    "sch_fq",
    "cls_bpf",
    "ifb",
    "veth",
    "sch_ingress",
    "sch_tbf",
    "sch_netem",
    "cls_matchall",
    "act_mirred",
)
OPTIONS = ("--color=no", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-v", "--durations=5")


def main() -> int:
    """Exit with pytest's own status, or with 1 when it failed on any of several kernels."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the guest is ended with us
    parser = argparse.ArgumentParser(prog="python -m tests.kernel", add_help=False)
    parser.add_argument("--kernel", action="append", dest="kernels")
    known, arguments = parser.parse_known_args()
    if not any(argument.startswith("tests/") for argument in arguments):
        arguments.append("tests/kernel")
    command = [sys.executable, "-m", "pytest", *OPTIONS, *arguments]
    if not known.kernels:
        return run(UserModeLinux(modules=MODULES, timeout_seconds=3600), command)[0]
    results = {}
    for kernel in known.kernels:
        print(f"=== Linux {kernel}", flush=True)
        results[kernel] = run(Qemu(kernel, modules=MODULES), command)
    print("\n".join(["", *(f"Linux {kernel}: {summary}" for kernel, (_, summary) in results.items())]))
    return int(any(status for status, _ in results.values()))


def run(guest: Guest, command: list[str]) -> tuple[int, str]:
    """The exit status, and the last line that pytest printed."""
    last = "nothing"

    def tell(line: str) -> None:
        nonlocal last
        last = line
        print(line, flush=True)

    with machine_copied() as shared:
        environment = {"PYTHONDONTWRITEBYTECODE": "1", "IN_GUEST": "1"}
        try:
            status = guest.run(
                command, environment=environment, folder=Path(__file__).parents[2], shared=shared, tell=tell
            )
        except GuestLostError as error:
            print(error, file=sys.stderr)
            return 1, f"{error}; last it said: {last}"
    return status, last.strip("= ")


@contextmanager
def machine_copied() -> Iterator[Path]:
    """A folder with a copy of the machine's /proc/stat, a fifth of a second old at most: the guest cannot read it."""
    done = threading.Event()
    with tempfile.TemporaryDirectory() as folder:

        def copy() -> None:
            while not done.wait(0.2):
                fresh = Path(folder) / "fresh"
                fresh.write_text(steal.machine())
                fresh.rename(Path(folder) / "stat")

        copier = threading.Thread(target=copy)
        copier.start()
        try:
            yield Path(folder)
        finally:
            done.set()
            copier.join()


if __name__ == "__main__":
    sys.exit(main())
