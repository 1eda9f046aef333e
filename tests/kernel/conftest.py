import os
from collections.abc import Iterator

import pytest

from reconciler.shaping import Shaper
from tests.kernel import lab
from tests.kernel.node import Node


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "IN_GUEST" not in os.environ:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="runs inside user-mode-linux: python -m tests.kernel"))


@pytest.fixture(scope="session")
def wire() -> Iterator[None]:
    with lab.nodes():
        yield


@pytest.fixture(scope="session")
def shaper() -> Iterator[Shaper]:
    """One program for all tests: compiling takes seconds in the guest."""
    started = Shaper.start(slots=8, record=lab.RECORD)
    yield started
    started.close()


@pytest.fixture
def limited(wire: None, shaper: Shaper) -> Iterator[lab.Pod]:  # noqa: ARG001 - the order of set-up
    shaper.collect({})  # those of the same name that are gone
    with lab.pod("limited", "eA", "172.51.0.100") as made:
        yield made


@pytest.fixture
def peer(wire: None, shaper: Shaper) -> Iterator[lab.Pod]:  # noqa: ARG001 - the order of set-up
    shaper.collect({})
    with lab.pod("peer", "eB", "172.51.0.102") as made:
        yield made


@pytest.fixture
def node(shaper: Shaper) -> Iterator[Node]:
    """A node whose controller and resync are at work."""
    with Node(shaper) as running:
        yield running
    shaper.collect({})
