"""Fixtures of the tests of both programs' commands."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """Puts logging back as it was: a command sets it up for a process of its own."""
    root = logging.getLogger()
    before = list(root.handlers), root.level
    yield root
    root.handlers[:], level = before
    root.setLevel(level)
