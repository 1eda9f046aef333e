"""A Pod that asks for the reconciler does not start without it: docs/operations.md, for who wants no time unlimited."""

import json
import os

import pytest

from tests.cluster import scenario
from tests.cluster.cluster import wait_for
from tests.cluster.scenario import OWN, RECONCILER, events_of, kernel_limits, limits

SPACE = "careful"
REQUIRED = {"required-plugins.noderesource.dev": '["ipvlan-bandwidth"]'}


@pytest.fixture
def without_reconcilers(cluster):
    """No node has one, until the test calls what it is given."""
    scenario.install(cluster)
    scenario.namespace(cluster, SPACE)

    def selecting(value):
        patch = {"spec": {"template": {"spec": {"nodeSelector": {"example.com/none": value}}}}}
        cluster.kubectl("-n", OWN, "patch", "daemonset", "reconciler", "--type=merge", f"--patch={json.dumps(patch)}")

    def gone():
        return not cluster.pods(OWN, RECONCILER)

    selecting("such")
    wait_for("the reconcilers' end", gone, 60)
    yield lambda: selecting(None)
    selecting(None)
    scenario.install(cluster)


def messages(cluster, name):
    return set(events_of(cluster, f"{SPACE}/{name}"))


def test_a_pod_that_asks_for_the_reconciler_waits_for_it_and_others_do_not(cluster, without_reconcilers):
    # New names: a second attempt would find the Pods and the events of the first.
    careful, careless = (f"{name}-{os.urandom(3).hex()}" for name in ("careful", "careless"))
    for name, asks in ((careful, REQUIRED), (careless, {})):
        annotations = {**limits("20M", "20M"), **asks}
        cluster.apply(json.dumps(scenario.pod(name, namespace=SPACE, node=1, annotations=annotations)))
    cluster.wait_ready(f"{SPACE}/{careless}")
    wait_for("the refusal", lambda: "required plugin" in str(messages(cluster, careful)), 30)
    without_reconcilers()
    cluster.wait_ready(f"{SPACE}/{careful}")
    assert kernel_limits(cluster, f"{SPACE}/{careful}") == {"ingress": 20_000_000, "egress": 20_000_000}
    wait_for("the word of the other", lambda: "RanUnlimited" in str(messages(cluster, careless)), 30)
    print(*(each for name in (careful, careless) for each in sorted(messages(cluster, name))), sep="\n")
    assert "RanUnlimited" not in str(messages(cluster, careful))
