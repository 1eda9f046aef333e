"""The pages of results are what the code makes of the JSON beside them: nobody edits them by hand."""

import json
import re
from pathlib import Path

import pytest

from tests import pages
from tests.bench.verdict import verdicts

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("what", pages.RENDERED)
def test_the_pages_that_are_kept_are_of_the_results_that_are_kept(what: str) -> None:
    for path, text in pages.RENDERED[what]().items():
        assert path.read_text() == text, f"{path.name} differs: python -m tests.pages"


def part_with(link: str, page: str = "docs/limits.md") -> str:
    """The page's paragraph, or item, that has it."""
    (told,) = (part for part in re.split(r"\n(?:\n|- )", (ROOT / page).read_text()) if link in part)
    return told


# They take minutes to an hour each, so they are not measured at every change of the program.
@pytest.mark.parametrize(
    ("page", "cells", "link"),
    [
        ("README.md", "latency/", "bench/results/README.md), of version"),
        ("docs/limits.md", "latency/", "bench/results/README.md), of version"),
        ("docs/limits.md", "cpu/20M ", "#cpu-time-of-a-transfer"),
    ],
)
def test_a_page_names_the_version_of_its_figures(page: str, cells: str, link: str) -> None:
    results = json.loads((pages.BENCH / "results.json").read_text())
    versions = {result["revision"].removesuffix("-dirty") for name, result in results.items() if name.startswith(cells)}
    assert {version for version in versions if version not in part_with(link, page)} == set()


@pytest.mark.parametrize(
    ("page", "kept", "key"),
    [
        ("docs/limits.md", pages.BENCH / "reconciler.json", "version"),
        ("docs/limits.md", pages.BENCH / "admission.json", "version"),
        ("README.md", pages.CLUSTER / "demo.json", "revision"),
    ],
    ids=["reconciler", "admission", "demo"],
)
def test_a_page_names_the_version_of_each_page_that_it_has_figures_of(page: str, kept: Path, key: str) -> None:
    told = part_with(f"{kept.with_suffix('.md').relative_to(ROOT)})", page)
    assert f"of version {json.loads(kept.read_text())[key]}" in told


def test_it_is_said_how_many_figures_of_the_benchmark_were_missed() -> None:
    made = verdicts(json.loads((pages.BENCH / "results.json").read_text()))
    missed, undecided = sum(each.reached is False for each in made), sum(each.undecided for each in made)
    assert f"{missed} of {len(made)} figures ({undecided} more are undecided)" in part_with("README.md#verdicts")
    told = (ROOT / "README.md").read_text()
    assert f"{missed} of the benchmark's {len(made)} targets are missed ({undecided} undecided)" in told
