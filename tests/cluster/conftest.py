"""One embedded cluster for all tests of this folder, under a name that no other run has."""

import os
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.cluster import Cluster


@pytest.fixture(scope="session")
def say(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Tells of progress past pytest's capture."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def tell(line: str) -> None:
        with capture.global_and_fixture_disabled():
            sys.stderr.write(f"\n{line}")

    return tell


@pytest.fixture(scope="session")
def cluster(say: Callable[[str], None]) -> Iterator[Cluster]:
    with Cluster(f"test-{os.getpid()}", say=say).running() as running:
        yield running
