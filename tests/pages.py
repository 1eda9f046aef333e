"""`python -m tests.pages`: the pages of results, written anew from the JSON beside them; nothing is measured."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import tests.bench.admission.report
import tests.bench.reconciler.report
import tests.bench.report
import tests.cluster.chaos.report
from tests.cluster import demo_report

HERE = Path(__file__).parent
BENCH, CLUSTER = HERE / "bench/results", HERE / "cluster/results"


def _bench() -> dict[Path, str]:
    made = tests.bench.report.files(json.loads((BENCH / "results.json").read_text()))
    return {BENCH / name: text for name, text in made.items()}


def _admission() -> dict[Path, str]:
    measured = json.loads((BENCH / "admission.json").read_text())
    return {BENCH / "admission.md": tests.bench.admission.report.markdown(measured)}


def _reconciler() -> dict[Path, str]:
    measured = json.loads((BENCH / "reconciler.json").read_text())
    return {BENCH / "reconciler.md": tests.bench.reconciler.report.text(measured)}


def _chaos() -> dict[Path, str]:
    report = tests.cluster.chaos.report
    return {CLUSTER / "README.md": report.page(report.read(CLUSTER / "chaos.json"))}


def _demo() -> dict[Path, str]:
    return {CLUSTER / "demo.md": demo_report.page(json.loads((CLUSTER / "demo.json").read_text()))}


RENDERED: Mapping[str, Callable[[], dict[Path, str]]] = {
    "bench": _bench,
    "admission": _admission,
    "reconciler": _reconciler,
    "chaos": _chaos,
    "demo": _demo,
}
"""By what measured it: the pages by their paths."""


def main() -> None:
    for render in RENDERED.values():
        for path, text in render().items():
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
