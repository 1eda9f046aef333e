"""How much of the machine's time its hypervisor gave to others: a node that stands still cannot send.

Tests of what a limit lets through hold their lower bounds against the time that was there. Where nothing is stolen (a
machine of one's own), they are as strict as they read; upper bounds are never loosened by it but where a test says so.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_STEAL = 7  # proc_stat(5): user nice system idle iowait irq softirq steal


def machine() -> str:
    """The machine's counters."""
    return Path("/proc/stat").read_text()


def _ticks(stat: str) -> tuple[int, int]:
    fields = [int(text) for text in stat.split("\n", 1)[0].split()[1:9]]
    return fields[_STEAL], sum(fields)


@dataclass(slots=True)
class Steal:
    """Counts from its making on; `read` gives the text of the machine's /proc/stat."""

    read: Callable[[], str] = machine
    _before: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self._before = _ticks(self.read())

    def share(self) -> float:
        """The stolen share of all CPUs' time since then, from 0 to 1."""
        stolen, total = (now - before for now, before in zip(_ticks(self.read()), self._before, strict=True))
        return stolen / total if total > 0 else 0.0
