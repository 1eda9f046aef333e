"""What a process and those that it has started hold in memory together, at their most."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

EVERY_S = 0.2


@dataclass(slots=True)
class Peak:
    """Resident MiB: of each process at its most, summed over those that there were at one moment."""

    mib: float = 0.0


def descendants(root: int) -> list[int]:
    """The processes that one has started, and those that these have."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [root]
    for one in found:
        found += [pid for pid, parent in parents.items() if parent == one]
    return found[1:]


def most_resident_mib(pid: int) -> float:
    """Of a process so far; 0 of one that has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


@contextlib.asynccontextmanager
async def watching(root: int) -> AsyncIterator[Peak]:
    """Look at those that a process has started, without itself, now and then as long as the block lasts.

    What a process held at its most stays told until it ends, so that nothing is missed but its last moment.
    """
    peak = Peak()

    def look() -> None:
        peak.mib = max(peak.mib, sum(map(most_resident_mib, descendants(root))))

    async def look_for_ever() -> None:
        while True:
            look()
            await asyncio.sleep(EVERY_S)

    task = asyncio.create_task(look_for_ever())
    try:
        yield peak
        look()
    finally:
        task.cancel()
