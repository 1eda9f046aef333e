"""cert-manager itself: its kinds, and its controllers and cainjector as a process of the machine."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.cluster.launch import program
from tests.cluster.layout import cache


def define(kubectl: Callable[..., object]) -> None:
    """Define cert-manager's kinds, as its module has them."""
    # Client-side, kubectl's record of what it applied would be longer than an annotation may be.
    kubectl("apply", "--server-side", "-f", str(cache() / "cert-manager"))
    kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")


@contextlib.contextmanager
def running(kubeconfig: Path, log: Path) -> Iterator[None]:
    """It runs within the block, as an administrator. It does not outlive this process."""
    command = ["setpriv", "--pdeathsig", "KILL", "--", str(program("cert-manager")), str(kubeconfig)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield
    finally:
        ended = process.poll()
        process.kill()
        process.wait()
    assert ended is None, f"cert-manager ended with status {ended}:\n{log.read_text()[-3000:]}"
