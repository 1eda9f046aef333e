"""The pages of results are what the code makes of the JSON beside them: nobody edits them by hand."""

import json
import re
from pathlib import Path

import pytest

from tests import pages

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("what", pages.RENDERED)
def test_the_pages_that_are_kept_are_of_the_results_that_are_kept(what: str) -> None:
    for path, text in pages.RENDERED[what]().items():
        assert path.read_text() == text, f"{path.name} differs: python -m tests.pages"


@pytest.mark.parametrize(
    ("page", "cells", "link"),
    [
        ("README.md", "latency/", "bench/results/README.md), of version"),
        ("docs/limits.md", "latency/", "bench/results/README.md), of version"),
        ("docs/limits.md", "cpu/20M ", "#cpu-time-of-a-transfer"),
    ],
)
def test_a_page_names_the_version_of_its_figures(page: str, cells: str, link: str) -> None:
    """They take half an hour or more, so they are not measured at every change of the program."""
    results = json.loads((pages.BENCH / "results.json").read_text())
    versions = {result["revision"].removesuffix("-dirty") for name, result in results.items() if name.startswith(cells)}
    (told,) = (part for part in re.split(r"\n(?:\n|- )", (ROOT / page).read_text()) if link in part)
    assert {version for version in versions if version not in told} == set()
