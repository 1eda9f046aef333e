"""What a Pod's author can do to others through the API server."""

import json
import threading
import time

from tests.cluster import scenario, traffic
from tests.cluster.api import Api
from tests.cluster.chaos.lab import LIMIT, PLAIN, SPACE, Lab, told
from tests.cluster.chaos.meter import WIRE, is_above, is_held_to
from tests.cluster.chaos.registry import Outcome, registered
from tests.cluster.cluster import wait_for
from tests.cluster.scenario import DEFAULT_NETWORK, EGRESS, INGRESS, MANAGED, OWN, STATUS, limits
from tests.losses import Doubt

RATE, SECONDS = 50, 20


@registered(
    "annotations-fast",
    f"one Pod's limit changed {RATE} times a second for {SECONDS} s; another Pod's changed meanwhile",
    seconds=35,
)
def annotations_fast(lab: Lab) -> Outcome:
    with (
        lab.pod("restless", annotations=limits(egress="10M")) as restless,
        lab.pod("patient", annotations=limits(egress="10M")) as patient,
    ):
        lab.until_limited(patient, {"egress": 10_000_000})
        changes: list[int] = []
        writer = threading.Thread(target=_write, args=(lab, restless.split("/")[1], changes))
        writer.start()
        time.sleep(SECONDS / 2)
        scenario.annotate(lab.cluster, patient, f"{EGRESS}=20M")
        took = lab.until_limited(patient, {"egress": 20_000_000})
        writer.join()
        last = lab.until_limited(restless, {"egress": changes[-1] * 1_000_000}, 30)
        events = lab.cluster.kubectl_json(
            "-n", SPACE, "get", "events", "--field-selector", "involvedObject.name=restless"
        )
        ours = [each for each in events["items"] if each["source"].get("component") == "ipvlan-bandwidth"]
    lost = []
    if took > 5:
        lost.append(f"the other Pod's change took {took:.1f} s")
    if len(ours) > 30:
        lost.append(f"{len(ours)} events on the restless Pod")
    if len(changes) < RATE * SECONDS / 2:
        lost.append(f"inconclusive: only {len(changes)} changes were made")
    seen = (
        f"{len(changes)} changes; the other Pod's was in force {took:.1f} s after, the last of the restless Pod's "
        f"{last:.1f} s after; {len(ours)} events on it"
    )
    return Outcome(seen, tuple(lost))


def _write(lab: Lab, name: str, changes: list[int]) -> None:
    """Change the Pod's egress limit at that rate; the numbers, in Mbit/s, of those that succeeded are added."""
    since = time.monotonic()
    with Api(lab.cluster) as api:
        for number in range(RATE * SECONDS):
            time.sleep(max(0.0, since + number / RATE - time.monotonic()))
            if time.monotonic() - since > 2 * SECONDS:
                break
            value = 10 + number % 7
            body = {"metadata": {"annotations": {EGRESS: f"{value}M"}}}
            path = f"/api/v1/namespaces/{SPACE}/pods/{name}"
            status, _ = api.call("PATCH", path, body, content="application/merge-patch+json")
            if status == 200:
                changes.append(value)


FORGED = json.dumps([{"name": "kube-system/ipvlan", "interface": "eth7", "default": True, "ips": ["172.51.0.1"]}])


@registered(
    "annotations-forged",
    "a Pod brings a network-status and the managed label of its own, and changes both while it runs; another, in a "
    "namespace that did not opt in, brings label, network and a limit, and gets a bad one later",
    seconds=35,
    quick=True,
)
def annotations_forged(lab: Lab) -> Outcome:
    lost = []
    inside = scenario.pod("forger", namespace=SPACE, node=1, annotations=limits(egress="10M") | {STATUS: FORGED})
    inside["metadata"]["labels"] = {MANAGED: "true"}
    own = limits(egress="10M") | {DEFAULT_NETWORK: "kube-system/ipvlan"}
    outside = scenario.pod("forger", namespace=PLAIN, node=1, annotations=own)
    outside["metadata"]["labels"] = {MANAGED: "true"}
    pods = [f"{SPACE}/forger", f"{PLAIN}/forger"]
    for pod in pods:
        scenario.gone(lab.cluster, *pod.split("/"))
    try:
        for manifest in (inside, outside):
            lab.cluster.apply(json.dumps(manifest))
        lab.cluster.wait_ready(*pods)
        for pod in pods:
            scenario.annotate(lab.cluster, pod, f"{STATUS}={FORGED}", f"{DEFAULT_NETWORK}=kube-system/other")
        # The webhook would refuse another value.
        lab.kubectl("-n", SPACE, "label", "pod", "forger", f"{MANAGED}-")
        lab.kubectl("-n", PLAIN, "label", "pod", "forger", "--overwrite", f"{MANAGED}=false")
        # Only now: containerd itself does not start a Pod that begins with it.
        scenario.annotate(lab.cluster, pods[1], f"{INGRESS}=100m")
        time.sleep(2)
        every = {pod: lab.limits_of(pod) for pod in (*pods, f"{SPACE}/sender")}
        for pod, held in every.items():
            expected = {"egress": (LIMIT if pod.endswith("sender") else 10) * 1_000_000}
            if held != expected:
                lost.append(f"{pod} is limited to {held}")
        flow = traffic.measure(lab.cluster, pods[0], f"{SPACE}/far", seconds=3)
        if not is_held_to(flow, 10):
            sent = f"the forger sent {flow}"
            lost.append(sent if is_above(flow, 10) else Doubt(sent))
        label = lab.cluster.pod(pods[0])["metadata"]["labels"].get(MANAGED)
        if label != "true":
            lost.append(f"the forger's label is {label}")
        event = scenario.wait_for_event(lab.cluster, pods[1], "InvalidBandwidth")
    finally:
        for pod in pods:
            lab.kubectl("-n", pod.split("/")[0], "delete", "pod", "forger", "--wait=false", "--ignore-not-found")
    seen = (
        f"the two are limited to {' and '.join(told(every[pod]) for pod in pods)}, {flow.mean * WIRE:.1f} Mbit/s sent; "
        f"the label that was taken off is {label}; on the other namespace's Pod: {event!r}"
    )
    return Outcome(seen, tuple(lost))


@registered(
    "slots-used-up",
    "more limited Pods on a node than the reconciler has slots for (4)",
    seconds=115,
)
def slots_used_up(lab: Lab) -> Outcome:
    command = lab.cluster.kubectl_json("-n", OWN, "get", "daemonset", "reconciler")["spec"]["template"]["spec"][
        "containers"
    ][0]["command"]
    names = [f"taker-{number}" for number in range(3)]
    both = {"ingress": 10_000_000, "egress": 10_000_000}
    scenario.gone(lab.cluster, SPACE, *names)
    _command(lab, [*command, "--slots", "4"])
    try:
        for name in names:
            pod = scenario.pod(name, namespace=SPACE, node=1, annotations=limits("10M", "10M"))
            lab.cluster.apply(json.dumps(pod))
            lab.cluster.wait_ready(f"{SPACE}/{name}")
        event = scenario.wait_for_event(lab.cluster, f"{SPACE}/{names[2]}", "BandwidthFailed")
        held = [lab.limits_of(f"{SPACE}/{name}") for name in ("sender", "receiver", *names)]
        lab.kubectl("-n", SPACE, "delete", "pod", names[0])
        took = lab.until_limited(f"{SPACE}/{names[2]}", both, 90)
    finally:
        lab.kubectl("-n", SPACE, "delete", "pod", *names, "--wait=false", "--ignore-not-found")
        _command(lab, command)
    expected = [{"egress": LIMIT * 1_000_000}, {"ingress": LIMIT * 1_000_000}, both, both, {}]
    lost = () if held == expected else (f"the Pods were limited to {held}",)
    seen = f"the fifth ran with {told(held[-1])} and was told {event!r}; limited {took:.0f} s after one went"
    return Outcome(seen, lost)


def _command(lab: Lab, command: list[str]) -> None:
    patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/command", "value": command}]
    lab.kubectl("-n", OWN, "patch", "daemonset", "reconciler", "--type=json", "-p", json.dumps(patch))
    lab.rolled_out("daemonset/reconciler")
    wait_for("limits as before", lambda: lab.limits_of(f"{SPACE}/sender") == {"egress": LIMIT * 1_000_000}, 30)
