"""The pages of results are what the code makes of the JSON beside them: nobody edits them by hand."""

import json
from pathlib import Path

import pytest

from tests import pages

README = Path(__file__).parents[3] / "README.md"


@pytest.mark.parametrize("what", pages.RENDERED)
def test_the_pages_that_are_kept_are_of_the_results_that_are_kept(what: str) -> None:
    for path, text in pages.RENDERED[what]().items():
        assert path.read_text() == text, f"{path.name} differs: python -m tests.pages"


def test_the_readme_names_the_version_of_its_figures_of_cpu_time() -> None:
    """They take an emulated machine's hour, so they are not measured as often as the others."""
    results = json.loads((pages.BENCH / "results.json").read_text())
    versions = {result["revision"] for name, result in results.items() if name.startswith("cpu/20M ")}
    latest = {result["revision"] for name, result in results.items() if name.startswith("latency/")}
    (told,) = (part for part in README.read_text().split("\n- ") if "#cpu-time-of-a-transfer" in part)
    assert {version for version in versions - latest if version.removesuffix("-dirty") not in told} == set()
