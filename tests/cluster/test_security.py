"""The manifests as they are run under the profiles that nodes put on containers by themselves."""

import json

import pytest

from tests.cluster import scenario, traffic
from tests.cluster.scenario import OWN, limits

PROFILE = "cri-containerd.apparmor.d (enforce)"


@pytest.fixture(scope="module")
def installed(cluster):
    scenario.install(cluster)
    scenario.namespace(cluster, "confined")
    yield cluster
    cluster.kubectl("delete", "namespace", "confined", timeout=120)


def profiles(node, pattern):
    """The AppArmor profiles of the processes whose command line matches, as the node's kernel has them."""
    pids = node.run("pgrep", "-f", pattern, check=False).stdout.split()
    return {node.run("cat", f"/proc/{pid}/attr/current").stdout.strip() for pid in pids}


@pytest.mark.parametrize("number", [1, 2])
def test_containerds_own_apparmor_profile_confines_both_programs(installed, number):
    node = installed.node(number)
    assert "apparmor" in node.run("cat", "/sys/kernel/security/lsm").stdout.split(",")
    assert profiles(node, "^python3 -m reconciler run") == {PROFILE}
    # The replicas are spread where that is possible: a node may be without one.
    here = [pod for pod in scenario.webhooks(installed) if pod["spec"].get("nodeName") == f"node{number}"]
    found = profiles(node, "^python3 -m webhook serve")
    assert found == {PROFILE} or not (found or here)


def test_the_profile_is_really_in_force(installed):
    """What it denies is denied: a process in the reconciler's container, with its capabilities, mounts nothing."""
    pod = scenario.reconciler_on(installed, 1)
    done = installed.kubectl("-n", OWN, "exec", pod, "--", "mount", "-t", "tmpfs", "none", "/tmp", check=False)  # noqa: S108
    assert done.returncode != 0
    assert "read-only" in done.stderr or "denied" in done.stderr


def test_a_confined_reconciler_limits_changes_and_cleans(installed):
    for name, annotations in (("limited", limits(egress="20M")), ("open", {})):
        node = 1 if name == "limited" else 2
        pod = scenario.pod(name, namespace="confined", node=node, annotations=annotations)
        installed.apply(json.dumps(pod))
    installed.wait_ready("confined/limited", "confined/open")
    flow = traffic.measure(installed, "confined/limited", "confined/open", seconds=4)
    assert flow.mean <= 19.3, str(flow)
    scenario.annotate(installed, "confined/limited", f"{scenario.EGRESS}-")
    scenario.wait_for_event(installed, "confined/limited", "BandwidthRemoved")
    assert scenario.kernel_limits(installed, "confined/limited") == {}
