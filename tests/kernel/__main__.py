"""`python -m tests.kernel [pytest arguments]`: the kernel tests by pytest inside one user-mode-linux guest."""

import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import steal
from tests.kernel.uml import Guest

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
OPTIONS = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-v", "--durations=5")


def main() -> int:
    """Exit with pytest's own status."""
    folder = Path(__file__).parents[2]
    arguments = sys.argv[1:]
    if not any(argument.startswith("tests/") for argument in arguments):
        arguments.append("tests/kernel")
    command = [sys.executable, "-m", "pytest", *OPTIONS, *arguments]
    guest = Guest(modules=MODULES, timeout_seconds=900)
    with machine_copied() as machine:
        environment = {"PYTHONDONTWRITEBYTECODE": "1", "IN_GUEST": "1", "MACHINE_FOLDER": machine}
        return guest.run(command, environment=environment, folder=folder)


@contextmanager
def machine_copied() -> Iterator[str]:
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
            yield folder
        finally:
            done.set()
            copier.join()


if __name__ == "__main__":
    sys.exit(main())
