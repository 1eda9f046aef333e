"""The container runtime restarted, a sandbox lost, a node lost."""

import time

from tests.cluster import traffic
from tests.cluster.chaos.lab import SPACE, Held, Lab, told
from tests.cluster.chaos.meter import is_above, is_held_to
from tests.cluster.chaos.registry import Outcome, registered
from tests.cluster.cluster import ClusterError, wait_for
from tests.cluster.scenario import OWN, limits, sandbox_pid, webhooks
from tests.losses import Doubt

# A collector looks for what nobody told of this often (reconciler/controller.py).
COLLECTED_S = 45
# The controller manager's --node-monitor-grace-period and --node-monitor-period, and 5 s for endpoints to follow.
KNOWN_LOST_S = 50 + 5 + 5
BARE_RATE = 5
# Of departures, from the time on that a killed sandbox's Pod is Ready again.
RECORDED_S = 10


@registered(
    "containerd-restarted",
    "containerd killed (SIGKILL) under traffic; a Pod older than that deleted afterwards",
    seconds=105,
)
def containerd_restarted(lab: Lab) -> Outcome:
    before = lab.held()
    with lab.pod("older", annotations=limits("10M", "10M")), lab.metering() as meter:
        lab.node().run("pkill", "-9", "-x", "containerd")
        wait_for("containerd", lambda: lab.node().run("ctr", "version", check=False).returncode == 0, 60)
        wait_for("its plugin again", lambda: lab.metrics().get("ipvlan_bandwidth_runtime_connected") == 1, 60)
        time.sleep(2)
    lab.kubectl("-n", SPACE, "delete", "pod", "older", "--ignore-not-found", timeout=90)
    after = wait_for_no_leak(lab, before)
    return Outcome(f"{meter}; before: {before}; after: {after}", (*meter.lost, *before.leaks(after)), meter.low)


def wait_for_no_leak(lab: Lab, before: Held, timeout: float = COLLECTED_S) -> Held:
    """What is held once there is no more of anything than `before`, or at the end of the time."""
    deadline = time.monotonic() + timeout
    while before.leaks(after := lab.held()) and time.monotonic() < deadline:
        time.sleep(2)
    return after


@registered(
    "sandbox-killed",
    "a limited Pod's pause process killed: a new sandbox of the same Pod, in a new netns",
    seconds=40,
)
def sandbox_killed(lab: Lab) -> Outcome:
    server = f"{SPACE}/far"
    port, to = "5298", traffic.address(lab.cluster, server)
    command = ["sh", "-c", f"while true; do iperf3 -c {to} -p {port} -t 2 >/dev/null; done"]
    lab.cluster.enter(server, "iperf3", "-s", "-D", "-p", port)
    try:
        with lab.pod("again", annotations=limits(egress="20M"), command=command) as pod:
            before, first = lab.held(), sandbox_pid(lab.cluster, pod)
            with traffic.recorded(lab.cluster, 1) as recording:
                lab.node().run("kill", "-9", first)
                wait_for("a new sandbox", lambda: sandbox_pid(lab.cluster, pod) not in ("", first), 90)
                lab.cluster.wait_ready(pod)
                source = traffic.address(lab.cluster, pod)
                time.sleep(RECORDED_S)
            limits_now, after = lab.limits_of(pod), wait_for_no_leak(lab, before)
    finally:
        lab.cluster.node_of(server).run("pkill", "-f", f"^iperf3 -s -D -p {port}", check=False)
    fastest = recording.fastest_window(source, window_ms=1000)
    lost = list(before.leaks(after))
    if limits_now != {"egress": 20_000_000}:
        lost.append(f"the new sandbox is limited to {limits_now}")
    if fastest > 20 * 1.02:
        lost.append(f"its fastest second, from its first packet on, was {fastest:.1f} Mbit/s of 20")
    if fastest < 20 / 2:
        lost.append(Doubt(f"inconclusive: {fastest:.1f} Mbit/s of 20 at most in what was recorded"))
    return Outcome(f"fastest second from its first packet on {fastest:.1f} of 20 Mbit/s; {after}", tuple(lost))


@registered(
    "node-lost",
    "a node loses its power for 70 s and comes back, under traffic on the other one",
    seconds=130,
)
def node_lost(lab: Lab) -> Outcome:
    _one_replica_on_each_node(lab)
    with lab.pod("returning", node=2, annotations=limits("10M", "10M")) as pod:
        with (
            lab.metering("near") as meter,
            lab.creating_elsewhere(rate=BARE_RATE) as elsewhere,
            lab.creating(rate=BARE_RATE) as here,
        ):
            lab.cluster.disturb("kill", "node2")
            try:
                time.sleep(70)
            finally:
                lab.cluster.disturb("start", "node2")
            began = time.monotonic()
            wait_for("node 2 Ready again", lambda: _is_ready(lab, "node2"), 120)
            ready_s = time.monotonic() - began
        lab.cluster.wait_ready(pod, f"{SPACE}/far", timeout=150)
        lab.reconciler_ready(2)
        lab.rolled_out("deployment/webhook")
        limits_now = lab.limits_of(pod)
        flow = traffic.measure(lab.cluster, pod, f"{SPACE}/near", seconds=3)
    refused = [failure.at_s for failure in here.failures]
    span = f"{min(refused):.0f} s to {max(refused):.0f} s" if refused else "no time"
    lost = [*meter.lost, *here.bypassed, *here.too_few(BARE_RATE), *elsewhere.lost_elsewhere(BARE_RATE)]
    if refused and max(refused) > KNOWN_LOST_S:
        lost.append(f"bare Pods were still refused {max(refused):.0f} s after, with a replica on the other node")
    if limits_now != {"ingress": 10_000_000, "egress": 10_000_000}:
        lost.append(f"the node's Pod is limited to {limits_now} afterwards")
    if not is_held_to(flow, 10):
        sent = f"afterwards the node's Pod sent {flow}"
        lost.append(sent if is_above(flow, 10) else Doubt(sent))
    seen = (
        f"{meter}; Ready {ready_s:.0f} s after power came back, its Pod limited to {told(limits_now)}; "
        f"{len(refused)} of {here.tried} bare Pods were refused ({span}), as one of the webhook's two replicas was on "
        f"that node; elsewhere {elsewhere}"
    )
    return Outcome(seen, tuple(lost), meter.low)


def _one_replica_on_each_node(lab: Lab) -> None:
    """What was done before may have left both replicas on one node; Kubernetes does not take them apart by itself."""

    def spread() -> bool:
        lab.rolled_out("deployment/webhook")
        return len({each["spec"].get("nodeName") for each in webhooks(lab.cluster)}) == 2

    if not spread():
        one = webhooks(lab.cluster)[0]["metadata"]["name"]
        lab.kubectl("-n", OWN, "delete", "pod", one)
        wait_for("a replica of the webhook on each node", spread, 120)


def _is_ready(lab: Lab, name: str) -> bool:
    try:
        # Not the condition alone: it stays as it was until somebody says otherwise.
        lab.node(int(name[-1])).run("true", timeout=10)
    except ClusterError:
        return False
    conditions = lab.cluster.kubectl_json("get", "node", name)["status"]["conditions"]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
