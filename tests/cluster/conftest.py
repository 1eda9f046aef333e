"""One embedded cluster for all tests of this folder, under a name that no other run has."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs no cluster, or clusters of its own, comes before the one of all: guests share the machine's CPUs.

    On that one its own tests come first: what is wrong with it is not looked for in the product.
    """

    def place(item: pytest.Item) -> tuple[bool, ...]:
        if not item.path.is_relative_to(HERE):
            return ()
        return "cluster" in getattr(item, "fixturenames", ()), item.path.stem != "test_cluster"

    items.sort(key=place)


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
