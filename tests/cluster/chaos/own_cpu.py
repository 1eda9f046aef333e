"""The CPU time that a node's reconciler took: whether a busy second was busy with that."""

from tests.cluster.commands import Node

# By a shell, as Python takes a second to start there. The brackets: the shell itself has no such words.
STATS = "for pid in $(pgrep -f '[r]econciler run'); do cat /proc/$pid/stat; done"
TICKS_A_SECOND = 100  # USER_HZ


def read(node: Node) -> str:
    """What /proc tells of the reconciler at this moment; nothing while there is none."""
    return node.run("sh", "-c", STATS, check=False).stdout


def seconds(before: str, after: str) -> float:
    """What it took between two moments, with children that have ended; one that is gone by then counts for nothing."""
    was = _ticks(before)
    return sum(ticks - was.get(pid, 0) for pid, ticks in _ticks(after).items()) / TICKS_A_SECOND


def _ticks(stats: str) -> dict[str, int]:
    found = {}
    for line in stats.splitlines():
        head, _, rest = line.rpartition(")")
        found[head.split(" ", 1)[0]] = sum(map(int, rest.split()[11:15]))
    return found
