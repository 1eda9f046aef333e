"""The product installed on the embedded cluster, and Pods with limits and without, for all tests of this folder."""

import json
import os

import pytest

from tests.cluster import scenario
from tests.cluster.scenario import limits
from tests.cluster.test_product.lab import OPEN, ORDINARY, SPACE


@pytest.fixture(scope="session")
def installed(cluster):
    """The product installed, three namespaces, and Pods on both nodes: limited ones, and unlimited ones beside them."""
    scenario.install(cluster)
    scenario.namespace(cluster, SPACE)
    scenario.namespace(cluster, OPEN)
    scenario.namespace(cluster, ORDINARY, network=None)
    both = limits("100M", "0.1G")
    cluster.apply(json.dumps(scenario.deployment("test", namespace=SPACE, annotations=both)))
    cluster.apply(json.dumps(scenario.deployment("test", namespace=OPEN, annotations={})))
    for space in (SPACE, OPEN):
        cluster.kubectl("-n", space, "rollout", "status", "deployment/test", "--timeout=120s", timeout=130)
    return cluster


@pytest.fixture(scope="session")
def limited(installed):
    return scenario.pods_of(installed, SPACE, "test")


@pytest.fixture(scope="session")
def unlimited(installed):
    return scenario.pods_of(installed, OPEN, "test")


@pytest.fixture
def run(installed):
    """Create a Pod in the opted-in namespace, and take it away again."""
    made = []

    def create(begin, *, ready=True, **kwargs):
        # A new name: a second attempt would find the Pod, at its end, and the events of the first.
        name = f"{begin}-{os.urandom(3).hex()}"
        installed.apply(json.dumps(scenario.pod(name, namespace=SPACE, **kwargs)))
        made.append(name)
        if ready:
            installed.wait_ready(f"{SPACE}/{name}")
        return f"{SPACE}/{name}"

    yield create
    if made:  # what is measured next has the node's CPU to itself
        scenario.gone(installed, SPACE, *made)
