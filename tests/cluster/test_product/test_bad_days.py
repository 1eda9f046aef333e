"""What breaks on a node, and the limits that stay or come back."""

import json
import time

from tests.cluster import scenario, traffic
from tests.cluster.chaos.meter import above_limit
from tests.cluster.cluster import wait_for
from tests.cluster.layout import PROJECT
from tests.cluster.scenario import (
    EGRESS,
    OWN,
    annotate,
    events_of,
    kernel_limits,
    limits,
    reconciler_restarts,
    sandbox_pid,
    still_limited,
)
from tests.cluster.test_product.lab import SPACE, best
from tests.losses import nothing_lost

# 1448 bytes of payload in 1514 bytes on the link: the most that TCP over IPv4 carries of a limit.
CARRIED = 1448 / 1514


def test_the_reconciler_killed_under_load_leaves_the_limit_in_force_and_adopts_it(installed, limited, unlimited):
    # Beside the same transfer without the kill: how steady the machine itself is at this hour.
    # One second in which it stands still would allow the kill everything, so the transfer must be a steady one.
    steadies = []
    while not steadies or (min(steadies[-1].intervals) < 80 and len(steadies) < 3):
        steadies.append(traffic.measure(installed, limited[1], unlimited[2], seconds=10))
    steady = steadies[-1]
    assert min(steady.intervals) >= 80, [str(flow) for flow in steadies]
    lowest_allowed = 0.9 * min(100 * CARRIED, *steady.intervals)
    flows = []
    while not flows or (min(flows[-1].intervals) < lowest_allowed and len(flows) < 6):
        before = reconciler_restarts(installed, 1)
        transfer = traffic.start(installed, limited[1], unlimited[2], seconds=20)
        time.sleep(4)
        installed.node(1).run("pkill", "-9", "-f", "reconciler run")
        flows.append(transfer.result())
        nothing_lost(above_limit(flows[-1], 100))
        scenario.wait_for_restart(installed, 1, before)
        installed.wait_ready(f"{OWN}/{scenario.reconciler_on(installed, 1)}")
        logs = installed.kubectl("-n", OWN, "logs", scenario.reconciler_on(installed, 1)).stdout
        assert '"adopted": true' in logs
        still_limited(installed, limited[1], {"ingress": 100_000_000, "egress": 100_000_000})
    print(f"without the kill {steady}", *flows, sep="\n")
    assert any(min(flow.intervals) >= lowest_allowed for flow in flows), (str(steady), [str(flow) for flow in flows])


def test_a_recreated_sandbox_is_limited_again_before_its_containers_run(installed, run, unlimited):
    pod = run("again", node=1, annotations=limits(egress="20M"))
    before = sandbox_pid(installed, pod)
    # The pause process dies, as by the kernel's out-of-memory killer: same Pod, new sandbox, new netns.
    installed.node(1).run("kill", "-9", before)
    wait_for("the new sandbox", lambda: sandbox_pid(installed, pod) not in ("", before), 90)
    installed.wait_ready(pod)
    assert kernel_limits(installed, pod) == {"egress": 20_000_000}
    best(installed, pod, unlimited[2], lowest=18.9, highest=19.2, limit=20, seconds=4)
    # By now it would have been told, if its limit had come after its containers. They do not wait for a reconciler that
    # a busy machine keeps, so this may be tried once more.
    assert "RanUnlimited" not in [reason for reason, _ in events_of(installed, pod)]


def test_a_clsact_that_somebody_deletes_is_put_back_and_the_owner_is_told(installed, run, unlimited):
    pod = run("undone", node=1, annotations=limits("20M", "20M"))
    scenario.wait_for_event(installed, pod, "BandwidthLimited")
    installed.enter(pod, "tc", "qdisc", "del", "dev", "eth0", "clsact")
    assert "eth0" in scenario.wait_for_event(installed, pod, "BandwidthRepaired")
    metrics = scenario.metrics(installed, scenario.reconciler_on(installed, 1))
    assert metrics["ipvlan_bandwidth_drift_repairs_total"] >= 1
    best(installed, pod, unlimited[2], lowest=18.9, highest=19.2, limit=20, seconds=4)


def test_a_pod_that_was_never_admitted_is_told_of(installed):
    scenario.namespace(installed, "unadmitted", network=None)
    pod = scenario.pod("old", namespace="unadmitted", node=1, annotations=limits(egress="20M"))
    pod["metadata"]["annotations"]["v1.multus-cni.io/default-network"] = "kube-system/ipvlan"
    installed.apply(json.dumps(pod))
    installed.wait_ready("unadmitted/old")
    assert "ipvlan-bandwidth.io/network=" in scenario.wait_for_event(installed, "unadmitted/old", "NotManaged")


def test_an_annotation_that_turns_bad_past_the_webhook_leaves_the_limit_also_over_a_restart(installed, run):
    pod = run("turning", node=1, annotations=limits(egress="20M"))
    patch = json.dumps({"metadata": {"annotations": {EGRESS: "100m"}}})
    past = ("-n", SPACE, "patch", "pod", pod.split("/")[1], "--subresource=status", "--type=merge", "-p", patch)
    installed.kubectl(*past)
    assert "the limit of 20M stays" in scenario.wait_for_event(installed, pod, "InvalidBandwidth")
    before = reconciler_restarts(installed, 1)
    installed.node(1).run("pkill", "-9", "-f", "reconciler run")
    scenario.wait_for_restart(installed, 1, before)
    installed.wait_ready(f"{OWN}/{scenario.reconciler_on(installed, 1)}")
    assert installed.pod(pod)["metadata"]["annotations"][EGRESS] == "100m"
    still_limited(installed, pod, {"egress": 20_000_000})
    annotate(installed, pod, f"{EGRESS}=10M")
    wait_for("the limit that was meant", lambda: kernel_limits(installed, pod) == {"egress": 10_000_000}, 20)


def test_describe_node_says_what_its_kernel_lacks(installed):
    """User-mode-linux has no BPF JIT."""
    node = installed.pod(f"{OWN}/{scenario.reconciler_on(installed, 1)}")["spec"]["nodeName"]
    text = wait_for("the event", lambda: t if "KernelLacks" in (t := describe_node(installed, node)) else "", 20)
    assert "CONFIG_BPF_JIT" in text


def describe_node(cluster, name):
    return cluster.kubectl("describe", "node", name).stdout


def test_the_manifests_applied_again_change_nothing(installed):
    # kubectl words a PodDisruptionBudget as configured even so; what is stored tells.
    folder = str(PROJECT / "manifests")
    before = stored(installed, folder)
    installed.kubectl("apply", "-k", folder)
    assert stored(installed, folder) == before
    assert {"MutatingWebhookConfiguration", "ResourceQuota", "DaemonSet"} <= {each["kind"] for each in before}
    # It fails where what is stored differs from the manifest, in words alone too.
    installed.kubectl("apply", "--server-side", "--dry-run=server", "-k", folder)


def stored(cluster, folder):
    """The objects, but for what their controllers say of them, and the versions that this makes."""
    items = json.loads(cluster.kubectl("get", "-k", folder, "-o", "json").stdout)["items"]
    for item in items:
        if item.pop("status", None) is not None:
            del item["metadata"]["resourceVersion"]
    return items
