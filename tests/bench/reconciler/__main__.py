"""`python -m tests.bench.reconciler [--results FOLDER]`: what the reconciler costs on a node of 250 limited Pods."""

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.reconciler.native import measure
from tests.bench.reconciler.report import text
from tests.bench.stats import kernel_series
from tests.kernel.__main__ import MODULES, machine_copied
from tests.kernel.uml import UserModeLinux
from tests.revision import revision

PROJECT = Path(__file__).parents[3]
RESULTS = PROJECT / "tests/bench/results"
MARK = "RESULT "


def in_guest() -> dict[str, object]:
    """What the guest measured."""
    found: list[dict[str, object]] = []

    def hear(line: str) -> None:
        if line.startswith(MARK):
            found.append(json.loads(line.removeprefix(MARK)))
        else:
            print(line, flush=True)

    with machine_copied() as shared:
        status = UserModeLinux(modules=MODULES, timeout_seconds=450).run(
            [sys.executable, "-m", "tests.bench.reconciler.guest"],
            environment={"PYTHONDONTWRITEBYTECODE": "1"},
            folder=PROJECT,
            shared=shared,
            tell=hear,
        )
    if status or not found:
        raise SystemExit(f"the guest's measurement failed with status {status}")
    return found[0]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.reconciler")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the results go [%(default)s]")
    folder = parser.parse_args().results
    measured = {
        "date": datetime.now(UTC).date().isoformat(),
        "version": revision(),
        "kernel": kernel_series(os.uname().release),
        "native": measure(),
        "guest": in_guest(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reconciler.json").write_text(json.dumps(measured, indent=1) + "\n")
    (folder / "reconciler.md").write_text(text(measured))
    print(text(measured))


if __name__ == "__main__":
    main()
