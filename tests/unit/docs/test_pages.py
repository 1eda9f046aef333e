"""The pages of results are what the code makes of the JSON beside them: nobody edits them by hand."""

import pytest

from tests import pages


@pytest.mark.parametrize("what", pages.RENDERED)
def test_the_pages_that_are_kept_are_of_the_results_that_are_kept(what: str) -> None:
    for path, text in pages.RENDERED[what]().items():
        assert path.read_text() == text, f"{path.name} differs: python -m tests.pages"
