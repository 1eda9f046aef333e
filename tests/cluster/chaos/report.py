"""The table of what was done, seen and lost: printed, and kept as JSON and Markdown."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RULE = 6
"""What rows are judged by; to be raised when a scenario may come out otherwise by another one."""
HEAD = """# What was done to a running installation, and what was lost

By `make chaos`, on the embedded cluster: two user-mode-linux nodes of one emulated CPU each, with a real API server,
etcd, kubelet and containerd. Where it says "under traffic", a Pod of 20 Mbit/s sends and another receives all the
while: shares are bytes on the link of each second, as iperf3 reports them at the receiver. A second above 102 % counts
as lost. What a second lacks may come later, a tenth of a second's at most, as the receiver waits for its node's one
CPU. Where it says so, the reconciler of their node took that much CPU time meanwhile; what one that was killed took
until then is not in it.

What counts as lost besides (by rule 6; a row by another is left out until it is run again):

- A second, the first apart, that has less than 90 % with the better of its neighbours too. Where the machine, or the
  one CPU of a flow's node, had nothing left in or beside it, one with less than 50 %: what starts on an emulated node
  takes it all for some seconds. A second with less than 10 % by itself, however much its neighbours have. Seconds that
  were not measured, from a fifth of them on. Where nothing but slow seconds was lost, all was done once more, and the
  row says so.
- What did not happen (a load, a rotation, a replica's end, a new sandbox that hardly sent while it was recorded) is
  told as inconclusive, and counts as lost.
- What comes late: a changed limit after more than 90 s, where the reconciler waits for 60 at most; in
  `webhook-deleted`, the Deployment's Pods, or an end of the refusals, after more than 60 s; in `many-at-once`, all Pods
  after more than 14 s for each, or their limits after more than a second on average.

Kubelet starts a container that ended again after 2 s here, where it is 10 s elsewhere, and twice as long each time: a
reconciler that was killed is away for as long.

[As JSON](chaos.json).

| done | seen | lost | seconds | day | version |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One scenario's result; `day` and `revision` say of which program."""

    name: str
    does: str
    seen: str
    lost: tuple[str, ...]
    seconds: float
    day: str
    revision: str
    rule: int = 1
    """Of what is kept: rows of before it was kept are of the first."""

    @property
    def passed(self) -> bool:
        """Whether nothing was lost."""
        return not self.lost

    def __str__(self) -> str:
        verdict = "nothing lost" if self.passed else "LOST: " + "; ".join(self.lost)
        return f"{self.name:22} {self.seconds:4.0f} s  {verdict}\n    {self.seen}"


def merge(path: Path, rows: Mapping[str, Row], order: tuple[str, ...]) -> list[Row]:
    """These rows, and those of the file that were not run again, by the same rule, in the scenarios' order."""
    everything = {row.name: row for row in read(path) if row.rule == RULE} | dict(rows)
    return [everything[name] for name in order if name in everything]


def read(path: Path) -> list[Row]:
    """The rows that are kept; none where there is no file."""
    return [_row(row) for row in json.loads(path.read_text())["scenarios"]] if path.exists() else []


def _row(stored: dict[str, object]) -> Row:
    fields = {key: value for key, value in stored.items() if key != "passed"}
    return Row(**{**fields, "lost": tuple(stored["lost"])})


def write(folder: Path, rows: list[Row]) -> None:
    """chaos.json and README.md."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"scenarios": [{**asdict(row), "passed": row.passed} for row in rows]}
    (folder / "chaos.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / "README.md").write_text(page(rows))


def page(rows: Sequence[Row]) -> str:
    """The whole page, in Markdown."""
    lines = [
        " | ".join(
            (
                "",
                *(" ".join(cell.replace("|", "\\|").split()) for cell in _cells(row)),
                "",
            )  # a row begins and ends with a bar
        ).strip()
        for row in rows
    ]
    return HEAD + "\n".join(lines) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    lost = "nothing" if row.passed else "**" + "; ".join(row.lost) + "**"
    return f"`{row.name}`: {row.does}", row.seen, lost, f"{row.seconds:.0f}", row.day, row.revision
