"""The reconciler killed, rolled, upgraded and away: what is limited stays limited."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cluster import scenario, traffic
from tests.cluster.chaos.control_plane import SENDER, catches_up, too_late
from tests.cluster.chaos.lab import LIMIT, SPACE, Lab
from tests.cluster.chaos.meter import is_above, is_held_to
from tests.cluster.chaos.registry import Outcome, registered
from tests.cluster.cluster import wait_for
from tests.cluster.layout import PROJECT
from tests.cluster.scenario import OWN, RECONCILER
from tests.losses import Doubt

SOURCE = "reconciler/kernel/shaper.c"
PATCH = {"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": "nowhere"}}}}}
UNPATCH = {"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": None}}}}}


@registered("reconciler-killed", "the reconciler killed (SIGKILL) under traffic", seconds=25, quick=True)
def killed(lab: Lab) -> Outcome:
    before = scenario.reconciler_restarts(lab.cluster, 1)
    with lab.metering() as meter:
        lab.node().run("pkill", "-9", "-f", "reconciler run")
        scenario.wait_for_restart(lab.cluster, 1, before)
        lab.reconciler_ready()
        time.sleep(3)
    logs = lab.kubectl("-n", OWN, "logs", lab.reconciler())
    adopted = () if '"adopted": true' in logs else ("the restarted reconciler did not adopt the program in force",)
    return Outcome(str(meter), (*meter.lost, *adopted), meter.low)


@registered(
    "runtime-silent",
    "the reconciler killed while a Pod takes long to terminate, so that containerd tells it of no Pods "
    "(containerd#14083); a limit changed meanwhile",
    seconds=32,
    quick=True,
)
def silent(lab: Lab) -> Outcome:
    connected, before = "ipvlan_bandwidth_runtime_connected", scenario.reconciler_restarts(lab.cluster, 1)
    told = _ran_unlimited(lab)
    with lab.pod("stubborn", command=["sh", "-c", "trap '' TERM; while true; do sleep 1; : stubborn; done"]):
        lab.kubectl("-n", SPACE, "delete", "pod", "stubborn", "--grace-period=300", "--wait=false")
        try:
            time.sleep(5)  # until kubelet has asked for its end
            lab.node().run("pkill", "-9", "-f", "reconciler run")
            scenario.wait_for_restart(lab.cluster, 1, before)
            took = catches_up(lab)
            heard = lab.metrics().get(connected)
        finally:
            lab.node().run("pkill", "-9", "-f", ": stubborn", check=False)
        wait_for("the Pods' list", lambda: lab.metrics().get(connected) == 1, 60)
        scenario.gone(lab.cluster, SPACE, "stubborn")
    limits, lost = lab.limits_of(SENDER), [*too_late(took)]
    if heard != 0:
        lost.append(Doubt(f"inconclusive: {connected} was {heard} meanwhile"))
    if limits != {"egress": LIMIT * 1_000_000}:
        lost.append(f"the sender is limited to {limits} afterwards")
    if news := _ran_unlimited(lab) - told:
        lost.append(f"the sender was told {news}")
    return Outcome(f"a limit changed meanwhile was in force {took:.1f} s later", tuple(lost))


def _ran_unlimited(lab: Lab) -> set[str]:
    """What the sender was told of times without limits: there were none."""
    return {message for reason, message in scenario.events_of(lab.cluster, SENDER) if reason == "RanUnlimited"}


@registered("reconciler-rolled", "the reconciler's DaemonSet rolled under traffic", seconds=53)
def rolled(lab: Lab) -> Outcome:
    with lab.metering() as meter:
        lab.kubectl("-n", OWN, "rollout", "restart", "daemonset/reconciler")
        lab.rolled_out("daemonset/reconciler")
        time.sleep(3)
    return Outcome(str(meter), meter.lost, meter.low)


@registered(
    "reconciler-upgraded",
    "the reconciler rolled to a version with another BPF program under traffic, and back",
    seconds=120,
)
def upgraded(lab: Lab) -> Outcome:
    before = _filters(lab)
    with lab.metering() as meter:
        with _other_program(lab):
            wait_for("the other program", lambda: _filters(lab) != before, 30)
            time.sleep(3)
        wait_for("the first program", lambda: _filters(lab) == before, 30)
        time.sleep(3)
    limits = lab.limits_of(f"{SPACE}/sender")
    lost = [*meter.lost]
    if limits != {"egress": LIMIT * 1_000_000}:
        lost.append(f"the sender is limited to {limits} afterwards")
    return Outcome(str(meter), tuple(lost), meter.low)


def _filters(lab: Lab) -> str:
    """The names of the programs on the sender's eth0: each has a hash of its source."""
    shown = lab.cluster.enter(f"{SPACE}/sender", "tc", "-json", "filter", "show", "dev", "eth0", "egress").stdout
    return ",".join(sorted(each["options"].get("bpf_name", "") for each in json.loads(shown) if "options" in each))


@contextmanager
def _other_program(lab: Lab) -> Iterator[None]:
    """The DaemonSet with another source of the program mounted over its own, while the block lasts."""
    text = (PROJECT / SOURCE).read_text() + "\n/* Another version: the same program under another hash. */\n"
    lab.cluster.apply(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "other-program", "namespace": OWN},
                "data": {"shaper.c": text},
            }
        )
    )
    daemon_set = lab.cluster.kubectl_json("-n", OWN, "get", "daemonset", "reconciler")["spec"]["template"]["spec"]
    (container,) = daemon_set["containers"]
    volume = {"name": "other-program", "configMap": {"name": "other-program"}}
    mount = {
        "name": "other-program",
        "mountPath": f"/opt/ipvlan-bandwidth/code/{SOURCE}",
        "subPath": "shaper.c",
        "readOnly": True,
    }
    volumes, mounts = "/spec/template/spec/volumes", "/spec/template/spec/containers/0/volumeMounts"
    _patch(
        lab,
        {"op": "add", "path": f"{volumes}/-", "value": volume},
        {"op": "add", "path": f"{mounts}/-", "value": mount},
    )
    try:
        yield
    finally:
        there = (volumes, daemon_set["volumes"]), (mounts, container["volumeMounts"])
        _patch(lab, *({"op": "remove", "path": f"{path}/{len(before)}"} for path, before in there))
        lab.kubectl("-n", OWN, "delete", "configmap", "other-program")


def _patch(lab: Lab, *steps: dict[str, Any]) -> None:
    lab.kubectl("-n", OWN, "patch", "daemonset", "reconciler", "--type=json", "-p", json.dumps(steps))
    lab.rolled_out("daemonset/reconciler")


@registered(
    "reconciler-away",
    "no reconciler on the nodes; a Pod with a limit starts, then the reconciler comes back",
    seconds=21,
    quick=True,
)
def away(lab: Lab) -> Outcome:
    daemon_set = ("-n", OWN, "patch", "daemonset", "reconciler", "--type=merge", "-p")
    lab.kubectl(*daemon_set, json.dumps(PATCH))
    try:
        lab.kubectl("-n", OWN, "wait", "--for=delete", "pod", "-l", RECONCILER, "--timeout=60s")
        with lab.pod("unwatched", annotations=scenario.limits(egress="10M")) as pod:
            began = time.monotonic()
            free = traffic.measure(lab.cluster, pod, f"{SPACE}/far", seconds=2)
            lab.kubectl(*daemon_set, json.dumps(UNPATCH))
            limited = wait_for("its limit", lambda: _held(lab, pod), 90, every=0.2)
            unlimited_s = time.monotonic() - began
            message = scenario.wait_for_event(lab.cluster, pod, "RanUnlimited")
            lab.reconciler_ready()
            metrics = lab.metrics()
            flow = traffic.measure(lab.cluster, pod, f"{SPACE}/far", seconds=3)
    finally:
        lab.kubectl(*daemon_set, json.dumps(UNPATCH))
        lab.rolled_out("daemonset/reconciler")
    counted = metrics.get("ipvlan_bandwidth_unshaped_seconds_total", 0.0)
    lost = []
    if not limited or not is_held_to(flow, 10):
        sent = f"after the reconciler came back the Pod sent {flow}"
        lost.append(sent if is_above(flow, 10) else Doubt(sent))
    # Its container started a little before the clock here, and some seconds may pass before kubectl shows it Ready.
    if not unlimited_s - 2 < counted < unlimited_s + 15:
        said = f"it ran {unlimited_s:.0f} s without a limit, counted as {counted:.1f} s"
        lost.append(Doubt(said) if counted else said)
    seen = (
        f"unlimited ({free.mean:.0f} Mbit/s) for {unlimited_s:.0f} s, until the reconciler was back; counted as "
        f"{counted:.1f} s; the Pod's event: {message!r}"
    )
    return Outcome(seen, tuple(lost))


def _held(lab: Lab, pod: str) -> bool:
    """Whether the shaper's filter is on the Pod's interface, seen from the node."""
    shown = lab.cluster.enter(pod, "tc", "filter", "show", "dev", "eth0", "egress", check=False).stdout
    return "direct-action" in shown
