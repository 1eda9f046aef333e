"""Seconds in which a flow had no CPU: the machine's are used up, or the one of a node that it comes from or goes to."""

import subprocess
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.cluster.cluster import Cluster
from tests.cluster.commands import Node
from tests.cluster.layout import HERE
from tests.steal import machine

IDLE = 0.10
"""Where less than this was idle, a flow may have less than its limit for want of a CPU."""


@dataclass(slots=True)
class Counted:
    """The idle share of some CPUs between one look at their counters and the next. Pure."""

    periods: list[tuple[float, float, float]] = field(default_factory=list)
    """From when to when, and the share from 0 to 1."""
    _before: tuple[float, int, int] | None = None

    def look(self, at: float, stat: str) -> None:
        """Take in the counters of a moment: what /proc/stat begins with."""
        ticks = [int(text) for text in stat.split("\n", 1)[0].split()[1:9]]
        idle, total = ticks[3], sum(ticks)
        if self._before is not None:
            since, was_idle, was = self._before
            self.periods.append((since, at, (idle - was_idle) / max(1, total - was)))
        self._before = at, idle, total

    def busy_seconds(self, since: float) -> frozenset[int]:
        """The seconds from then on, and their neighbours, in which there was next to no idle CPU."""
        late = [(int(began - since), int(at - since)) for began, at, share in self.periods if share < IDLE]
        return frozenset(second for first, last in late for second in range(first - 1, last + 2))


class IdleWatch:
    """Looks twice a second, from its making until it is stopped."""

    def __init__(self, cluster: Cluster, pods: Iterable[str]) -> None:
        self._ended = threading.Event()
        nodes = {node.number: node for node in map(cluster.node_of, pods)}
        self._nodes = [_start(node) for node in nodes.values()]
        self._counted = [Counted() for _ in (machine, *self._nodes)]
        self._threads = [threading.Thread(target=self._watch_machine, args=(self._counted[0],))]
        for process, counted in zip(self._nodes, self._counted[1:], strict=True):
            self._threads.append(threading.Thread(target=_follow, args=(process, counted)))
        for thread in self._threads:
            thread.start()

    def _watch_machine(self, counted: Counted) -> None:
        counted.look(time.monotonic(), machine())
        while not self._ended.wait(0.5):
            counted.look(time.monotonic(), machine())

    def stop(self) -> None:
        """End it."""
        self._ended.set()
        for process in self._nodes:
            process.kill()
        for thread in self._threads:
            thread.join()
        for process in self._nodes:
            process.communicate()

    def busy_seconds(self, since: float) -> frozenset[int]:
        """The seconds from then on, and their neighbours, in which the machine or one of the nodes had no idle CPU."""
        return frozenset().union(*(each.busy_seconds(since) for each in self._counted))


def _start(node: Node) -> subprocess.Popen[str]:
    return node.popen("python3", str(HERE / "node" / "ticks.py"))


def _follow(process: subprocess.Popen[str], counted: Counted) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        counted.look(time.monotonic(), line)
