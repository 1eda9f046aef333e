"""The table of what was done, seen and lost: printed, and kept as JSON and Markdown."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

HEAD = """# What was done to a running installation, and what was lost

By `make chaos`, on the embedded cluster: two user-mode-linux nodes of one emulated CPU each, with a real API server,
etcd, kubelet and containerd. Where it says "under traffic", a Pod of 20 Mbit/s sends and another receives all the
while: shares are bytes on the link of each second, as iperf3 reports them at the receiver. A second above 102 % counts
as lost, and one that has less than 90 % with the better of its neighbours too, the first apart. What a second lacks may
come in the next, a tenth of it at most, as the receiver waits for its node's one CPU; and a second in which the machine
had no CPU left may be below. Where nothing but a slow second was lost, all was done once more, and the row says
so. [As JSON](chaos.json).

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

    @property
    def passed(self) -> bool:
        """Whether nothing was lost."""
        return not self.lost

    def __str__(self) -> str:
        verdict = "nothing lost" if self.passed else "LOST: " + "; ".join(self.lost)
        return f"{self.name:22} {self.seconds:4.0f} s  {verdict}\n    {self.seen}"


def merge(path: Path, rows: Mapping[str, Row], order: tuple[str, ...]) -> list[Row]:
    """These rows, and those of the file that were not run again, in the scenarios' order."""
    kept = json.loads(path.read_text())["scenarios"] if path.exists() else []
    everything = {row["name"]: _row(row) for row in kept} | dict(rows)
    return [everything[name] for name in order if name in everything]


def _row(stored: dict[str, object]) -> Row:
    fields = {key: value for key, value in stored.items() if key != "passed"}
    return Row(**{**fields, "lost": tuple(stored["lost"])})


def write(folder: Path, rows: list[Row]) -> None:
    """chaos.json and README.md."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"scenarios": [{**asdict(row), "passed": row.passed} for row in rows]}
    (folder / "chaos.json").write_text(json.dumps(content, indent=1) + "\n")
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
    (folder / "README.md").write_text(HEAD + "\n".join(lines) + "\n")


def _cells(row: Row) -> tuple[str, ...]:
    lost = "nothing" if row.passed else "**" + "; ".join(row.lost) + "**"
    return f"`{row.name}`: {row.does}", row.seen, lost, f"{row.seconds:.0f}", row.day, row.revision
