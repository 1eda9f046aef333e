"""The main job on the embedded cluster: labels and annotations in, limited Pods and refusals out."""

import json
import os
import time
from dataclasses import replace

import pytest

from reconciler.program_record import NAME
from tests.cluster import scenario, traffic
from tests.cluster.chaos.meter import above_limit
from tests.cluster.cluster import wait_for
from tests.cluster.layout import PROJECT
from tests.cluster.scenario import (
    EGRESS,
    INGRESS,
    OWN,
    annotate,
    events_of,
    kernel_limits,
    limits,
    reconciler_restarts,
    sandbox_pid,
    still_limited,
)
from tests.losses import nothing_lost

SPACE, OPEN, ORDINARY = "shop", "open", "ordinary"
# 1448 bytes of payload in 1514 bytes on the link: the most that TCP over IPv4 carries of a limit.
CARRIED = 1448 / 1514


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def limited(installed):
    return scenario.pods_of(installed, SPACE, "test")


@pytest.fixture(scope="module")
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


def best(cluster, client, server, *, lowest, highest, limit, seconds=10):
    """The best of up to six transfers: a busy machine makes the nodes slow, but no transfer may ever be too fast.

    What the machine's hypervisor took of the time is taken off the lower bound (tests/steal.py).
    """
    flows = []
    while not flows or (not reaches(flows[-1], lowest) and len(flows) < 6):
        flows.append(traffic.measure(cluster, client, server, seconds=seconds, first=True))
        print(flows[-1])
        nothing_lost(above_limit(flows[-1], limit))
        # A receiver that begins late has the same bytes in less time, so this may be tried once more.
        assert flows[-1].mean <= highest, str(flows[-1])
    assert any(reaches(flow, lowest) for flow in flows), [str(flow) for flow in flows]


def refused(cluster, *command, says, **options):
    """Whether kubectl fails and gives this reason."""
    done = cluster.kubectl(*command, check=False, **options)
    return done.returncode != 0 and says in done.stderr


def terminated(cluster, pod):
    """Whether the Pod's container has ended, once at least."""
    states = cluster.pod(pod)["status"].get("containerStatuses", [])
    return any("terminated" in each[which] for each in states for which in ("state", "lastState"))


def reaches(flow, lowest):
    return flow.mean >= lowest * (1 - flow.stolen)


# -- admission -----------------------------------------------------------------------------------------------------


def test_the_network_is_injected_the_values_are_normalised_and_the_pod_is_labelled(installed, limited):
    metadata = installed.pod(limited[1])["metadata"]
    assert metadata["annotations"]["v1.multus-cni.io/default-network"] == "kube-system/ipvlan"
    assert metadata["annotations"][INGRESS] == metadata["annotations"][EGRESS] == "100M"
    assert metadata["labels"]["ipvlan-bandwidth.io/managed"] == "true"
    status = json.loads(metadata["annotations"]["k8s.v1.cni.cncf.io/network-status"])
    assert status[0]["name"] == "kube-system/ipvlan"


def test_a_namespace_that_did_not_opt_in_is_left_alone(installed):
    wrong = scenario.pod("plain", namespace=ORDINARY, node=1)
    installed.apply(json.dumps(wrong))
    installed.wait_ready(f"{ORDINARY}/plain")
    metadata = installed.pod(f"{ORDINARY}/plain")["metadata"]
    assert "v1.multus-cni.io/default-network" not in metadata.get("annotations", {})
    assert installed.pod(f"{ORDINARY}/plain")["status"]["podIP"].startswith("10.244.1.")


def test_a_bare_pod_with_a_mistyped_limit_is_refused_where_it_is_applied(installed):
    wrong = scenario.pod("wrong", namespace=SPACE, annotations=limits("100m", "1Mbps"))
    done = installed.kubectl("apply", "-f", "-", input=json.dumps(wrong), check=False)
    assert done.returncode == 1
    assert f"{INGRESS}" in done.stderr
    assert 'did you mean "100M"?' in done.stderr
    assert 'did you mean "1M"?' in done.stderr


def test_a_workload_with_a_mistyped_limit_says_why_in_describe(installed):
    installed.apply(json.dumps(scenario.deployment("wrong", namespace=SPACE, annotations=limits("100m"), replicas=1)))
    describe = ("-n", SPACE, "describe", "rs", "-l", "app=wrong")
    text = wait_for(
        "the refusal", lambda: t if "FailedCreate" in (t := installed.kubectl(*describe).stdout) else "", 30
    )
    assert 'did you mean "100M"?' in text
    installed.kubectl("-n", SPACE, "delete", "deployment", "wrong")


def test_a_malformed_label_refuses_the_pods_and_says_what_it_should_look_like(installed):
    scenario.namespace(installed, "mislabelled", network="ipvlan")
    pod = scenario.pod("any", namespace="mislabelled")
    # A dry run: one that is allowed, as the webhook does not know the namespace yet, leaves nothing.
    apply, text = ("apply", "--dry-run=server", "-f", "-"), json.dumps(pod)
    wait_for("the refusal", lambda: refused(installed, *apply, says="NAMESPACE.NAME", input=text), 30)


def test_a_pod_older_than_the_opt_in_can_be_labelled_finalised_and_finished_with_a_bad_annotation(installed):
    # A new name: of a first attempt the label and the Pod may be left.
    space = f"older-{os.urandom(3).hex()}"
    scenario.namespace(installed, space, network=None)
    old = scenario.pod("old", namespace=space, node=1)
    old["metadata"]["finalizers"] = ["example.com/wait"]
    installed.apply(json.dumps(old))
    installed.wait_ready(f"{space}/old")
    patch = json.dumps({"metadata": {"annotations": {INGRESS: "100m"}}})
    installed.kubectl("-n", space, "patch", "pod", "old", "--type=merge", "-p", patch)
    scenario.namespace(installed, space)
    # From when on the API server's and the webhook's caches know of the label.
    worse = ("-n", space, "annotate", "pod", "old", f"{EGRESS}=nonsense", "--dry-run=server")
    wait_for("the refusal", lambda: refused(installed, *worse, says=EGRESS), 30)
    installed.kubectl("-n", space, "label", "pod", "old", "a=b")
    installed.kubectl("-n", space, "delete", "pod", "old", "--wait=false")
    installed.kubectl(
        "-n", space, "patch", "pod", "old", "--type=json", "-p", '[{"op":"remove","path":"/metadata/finalizers"}]'
    )
    installed.kubectl("-n", space, "wait", "--for=delete", "pod/old", "--timeout=60s", timeout=70)


# -- bandwidth -----------------------------------------------------------------------------------------------------


def test_the_owner_is_told_that_the_limits_are_in_force(installed, limited):
    message = scenario.wait_for_event(installed, limited[1], "BandwidthLimited")
    assert message == "limited to ingress 100M, egress 100M bit/s on eth0"
    assert kernel_limits(installed, limited[1]) == {"ingress": 100_000_000, "egress": 100_000_000}


@pytest.mark.parametrize("server_node", [2, 1], ids=["across nodes", "on one node"])
@pytest.mark.parametrize("direction", ["egress", "ingress"])
def test_tcp_carries_what_the_limit_allows(installed, limited, unlimited, direction, server_node):
    ours, theirs = limited[1], unlimited[server_node]
    client, server = (ours, theirs) if direction == "egress" else (theirs, ours)
    best(installed, client, server, lowest=94.5, highest=96, limit=100)


def test_without_limits_a_pod_has_the_whole_link(installed, unlimited):
    flow = traffic.measure(installed, unlimited[1], unlimited[2], seconds=4)
    assert flow.mean > 200, str(flow)


def test_a_limit_changes_on_an_open_connection_and_is_lifted_and_set_again(installed, run, unlimited):
    pod = run("changing", node=1, annotations=limits(egress="100M"))
    transfer = traffic.start(installed, pod, unlimited[2], seconds=12)
    time.sleep(5)
    annotate(installed, pod, f"{EGRESS}=20M")
    flow = transfer.result()
    nothing_lost(above_limit(replace(flow, intervals=flow.intervals[:4]), 100))
    assert max(flow.intervals[:4]) > 50, str(flow)
    last = flow.intervals[9:]
    # At some hours an emulated CPU's timers are milliseconds late, and what they cost is not made up for.
    assert 18.0 * (1 - flow.stolen) <= sum(last) / len(last) <= 19.3, str(flow)
    assert "from egress 100M bit/s to egress 20M bit/s" in scenario.wait_for_event(installed, pod, "BandwidthChanged")

    annotate(installed, pod, f"{EGRESS}-")
    scenario.wait_for_event(installed, pod, "BandwidthRemoved")
    assert kernel_limits(installed, pod) == {}
    assert traffic.measure(installed, pod, unlimited[2], seconds=3).mean > 200

    annotate(installed, pod, f"{INGRESS}=20M")
    wait_for("the ingress limit", lambda: kernel_limits(installed, pod) == {"ingress": 20_000_000}, 20)
    # As above; on ingress below 100M a flow makes up for it at 5/4 of its limit at most: 18.3 to 18.8 then, where it is
    # 19.1 otherwise.
    best(installed, unlimited[2], pod, lowest=18.0, highest=19.2, limit=20, seconds=6)
    assert "ipvlan-bandwidth.io/managed" in installed.pod(pod)["metadata"]["labels"]


def test_a_pod_whose_first_instruction_is_to_send_is_limited_from_its_first_packet(installed, run, unlimited):
    server = unlimited[2]
    port = traffic.next_port()
    installed.enter(server, "iperf3", "-s", "-1", "-D", "-p", port)
    traffic.wait_listening(installed.node_of(server), server, port)
    with traffic.recorded(installed, 1) as recording:
        command = ["iperf3", "-c", traffic.address(installed, server), "-p", port, "-t", "5"]
        pod = run("eager", node=1, annotations=limits(egress="100M"), command=command, ready=False)
        wait_for("the end of its transfer", lambda: terminated(installed, pod), 120)
        source = traffic.address(installed, pod)
    assert sum(size for _, size in recording.departures[source]) > 20_000_000
    assert recording.fastest_window(source) <= 105


def test_a_flow_paced_by_its_application_keeps_its_rate_beside_a_bulk_flow(installed, limited, unlimited):
    bulk = traffic.start(installed, limited[1], unlimited[2], seconds=12)
    paced = traffic.start(installed, limited[1], unlimited[2], seconds=8, extra=["--fq-rate", "10M"])
    flow = paced.result()
    bulk.result()
    # Its sender's timers are late at some hours too.
    assert 9.0 * (1 - flow.stolen) <= flow.mean <= 10.1, str(flow)


# -- bad days ------------------------------------------------------------------------------------------------------


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


def test_uninstalled_limits_stay_until_clean_takes_them_away(installed, limited, unlimited):
    scenario.uninstall(installed)
    assert NAME in installed.node(1).run("ls", "/run/nri").stdout
    flow = traffic.measure(installed, limited[1], unlimited[2], seconds=3)
    nothing_lost(above_limit(flow, 100))
    assert 48 <= flow.mean <= 96, str(flow)
    installed.kubectl("apply", "-k", str(PROJECT / "manifests" / "clean"))
    wait_for(
        "the limit to go",
        lambda: traffic.measure(installed, limited[1], unlimited[2], seconds=2).mean > 200,
        90,
    )
    wait_for("the record of programs to go", lambda: NAME not in installed.node(1).run("ls", "/run/nri").stdout, 90)
    installed.kubectl("delete", "-k", str(PROJECT / "manifests" / "clean"), timeout=180)
