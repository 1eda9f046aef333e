"""On a containerd before 2.3, whose NRI says all hooks of a Pod by one method: the same limits, at the same moments."""

import json
import os

import pytest

from tests.cluster import launch, scenario, traffic
from tests.cluster.chaos.meter import above_limit
from tests.cluster.cluster import Cluster, wait_for
from tests.cluster.layout import cache
from tests.cluster.scenario import INGRESS, OWN, annotate, events_of, kernel_limits, limits, still_limited
from tests.losses import nothing_lost

SPACE = "shop"


@pytest.fixture(scope="module")
def installed(say):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERD", str(launch.program("older/containerd").parent))
        with Cluster(f"test-{os.getpid()}-older", say=say).running() as running:
            scenario.install(running)
            scenario.namespace(running, SPACE)
            for name, node in (("limited", 1), ("peer", 2)):
                annotations = limits("20M", "20M") if name == "limited" else {}
                running.apply(json.dumps(scenario.pod(name, namespace=SPACE, node=node, annotations=annotations)))
            for name in ("limited", "peer"):
                running.wait_ready(f"{SPACE}/{name}")
            yield running


def reasons(cluster, name):
    return [reason for reason, _ in events_of(cluster, f"{SPACE}/{name}")]


def test_a_pod_is_limited_before_its_containers_run(installed):
    nodes = installed.kubectl_json("get", "nodes")["items"]
    assert all(node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://2.2.") for node in nodes)
    assert kernel_limits(installed, f"{SPACE}/limited") == {"ingress": 20_000_000, "egress": 20_000_000}
    wait_for("the event", lambda: "BandwidthLimited" in reasons(installed, "limited"), 10)
    assert "RanUnlimited" not in reasons(installed, "limited")
    for client, server in (("limited", "peer"), ("peer", "limited")):
        flow = traffic.measure(installed, f"{SPACE}/{client}", f"{SPACE}/{server}", seconds=5, first=True)
        print(flow)
        nothing_lost(above_limit(flow, 20))


def test_a_new_reconciler_hears_of_the_pods_that_run(installed):
    _new_reconciler(installed)
    annotate(installed, f"{SPACE}/limited", f"{INGRESS}=10M")
    wait_for("the change", lambda: kernel_limits(installed, f"{SPACE}/limited").get("ingress") == 10_000_000, 20)
    assert "RanUnlimited" not in reasons(installed, "limited")


@pytest.mark.flaky(reruns=0)  # containerd is upgraded only once
def test_an_upgrade_in_place_to_one_that_knows_no_older_netns_takes_no_limit_away(installed):
    node = installed.node(1)
    for name in ("containerd", "containerd-shim-runc-v2"):
        node.run("mount", "--bind", str(cache() / "bin" / name), f"/opt/cluster/bin/{name}")
    annotate(installed, f"{SPACE}/limited", f"{INGRESS}=20M")
    wait_for("the change", lambda: kernel_limits(installed, f"{SPACE}/limited").get("ingress") == 20_000_000, 20)
    assert "Version:  2.2." in _server(node)
    node.run("pkill", "-9", "-x", "containerd")
    wait_for("the new one", lambda: _server(node), 60)
    assert "Version:  2.2." not in _server(node)
    wait_for("its plugin again", lambda: _metric(installed, "ipvlan_bandwidth_runtime_connected") == 1, 60)
    # Kubelet tries its connection again after up to three seconds, and answers with the last refusal until then.
    exec_true = ("-n", OWN, "exec", scenario.reconciler_on(installed, 1), "--", "true")
    wait_for("kubelet's connection again", lambda: installed.kubectl(*exec_true, check=False).returncode == 0, 30)
    for rate in (10, 20):
        before = {"ingress": (30 - rate) * 1_000_000, "egress": 20_000_000}
        still_limited(installed, f"{SPACE}/limited", before)
        annotate(installed, f"{SPACE}/limited", f"{INGRESS}={rate}M")
        wanted = {"ingress": rate * 1_000_000, "egress": 20_000_000}
        wait_for("the change", lambda wanted=wanted: kernel_limits(installed, f"{SPACE}/limited") == wanted, 20)
        # The next round is that of a reconciler that has no memory of this Pod.
        _new_reconciler(installed)
    assert _metric(installed, 'ipvlan_bandwidth_pods{state="shaped"}') == 1
    assert "RanUnlimited" not in reasons(installed, "limited")


def _server(node):
    """What containerd itself says of its version; nothing while it does not answer."""
    return node.run("ctr", "version", check=False).stdout.partition("Server:")[2]


def _new_reconciler(cluster):
    cluster.kubectl("-n", OWN, "delete", "pod", scenario.reconciler_on(cluster, 1), timeout=60)
    cluster.wait_ready(f"{OWN}/{scenario.reconciler_on(cluster, 1)}")


def _metric(cluster, name):
    return scenario.metrics(cluster, scenario.reconciler_on(cluster, 1)).get(name)


@pytest.mark.flaky(reruns=0)  # it goes only once
def test_a_pod_that_goes_leaves_no_slot_taken(installed):
    assert "limited" in scenario.observe(installed, 1)
    installed.kubectl("-n", SPACE, "delete", "pod", "limited", timeout=60)
    wait_for("its end", lambda: "limited" not in scenario.observe(installed, 1), 20)
