"""One embedded cluster for all tests of this folder, under a name that no other run has."""

import os
import sys
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            sys.stderr.write(f"\n{line}")

    with Cluster(f"test-{os.getpid()}", say=say).running() as running:
        yield running
