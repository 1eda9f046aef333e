"""Running commands on the machine and on the nodes, and waiting for what they tell."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.cluster.layout import PROJECT

T = TypeVar("T")


class ClusterError(Exception):
    """Something about the cluster that a person has to know; the text says what, where and what to do."""


class TimedOut(ClusterError):  # noqa: N818 - its base says what it is
    """What was waited for did not come."""


def wait_for(what: str, probe: Callable[[], T], timeout: float, *, every: float = 0.5) -> T:
    """Ask until the answer is true, and give it. Raises TimedOut after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimedOut(f"{what}: not there after {timeout:.0f} s")
        time.sleep(every)


def run(
    command: Sequence[str], what: str, *, stdin: str = "", timeout: float = 120, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command on the machine to its end.

    Raises ClusterError when it fails and `check`, TimedOut after `timeout` seconds; it is killed then.
    """
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False, cwd=PROJECT
        )
    except subprocess.TimeoutExpired as error:
        raise TimedOut(f"{what}: not done after {timeout:.0f} s; so far: {error.stdout!r} {error.stderr!r}") from error
    if check and done.returncode != 0:
        raise ClusterError(f"{what}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done


@dataclass(frozen=True, slots=True)
class Node:
    """One of the two nodes."""

    number: int
    agent: Path

    @property
    def name(self) -> str:
        """As Kubernetes knows it."""
        return f"node{self.number}"

    def command(self, *argv: str, pod: str | None = None) -> list[str]:
        """Command line that, run on the machine, runs `argv` on the node.

        With a Pod (NAMESPACE/NAME), in that Pod's network namespace: `nsenter` with the pid of its pause process.
        """
        request: dict[str, Any] = {"argv": argv}
        if pod is not None:
            request["pod"] = pod
        return [sys.executable, "-m", "tests.cluster.remote", str(self.agent), json.dumps(request)]

    def run(
        self, *argv: str, pod: str | None = None, stdin: str = "", timeout: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the node to its end. Raises as `run` does; a command that is killed is killed there."""
        what = f"{self.name}: {' '.join(argv)}"
        return run(self.command(*argv, pod=pod), what, stdin=stdin, timeout=timeout, check=check)

    def popen(self, *argv: str, pod: str | None = None) -> subprocess.Popen[str]:
        """Start a command; killing the process that this gives kills the command on the node."""
        pipe = subprocess.PIPE
        command = self.command(*argv, pod=pod)
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=PROJECT)
