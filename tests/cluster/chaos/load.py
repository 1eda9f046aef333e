"""Many Pods at once and in turn, and kubelet's probes on a Pod whose limit is used up."""

import contextlib
import json
import os
import time
from collections.abc import Iterator

from tests.cluster import scenario, traffic
from tests.cluster.chaos.lab import SPACE, Lab
from tests.cluster.chaos.meter import is_above, is_held_to
from tests.cluster.chaos.node import wait_for_no_leak
from tests.cluster.chaos.registry import Outcome, registered
from tests.cluster.cluster import wait_for
from tests.cluster.scenario import limits
from tests.losses import Doubt

# What a node of 3 GiB and one emulated CPU carries in ten minutes: a Pod of two containers takes nine seconds of it.
AT_ONCE = int(os.environ.get("CHAOS_PODS", "50"))
# For each of them until all run, half as long again as that; and what a sandbox waits for its limits on average, where
# the runtime would wait for two seconds at most.
EACH_S, WAITED_S = 14, 1.0
IN_TURN, WAVES = 10, 5
# Where containerd does not come to clean up a container within 10 s, kubelet asks it again two minutes later.
REMOVED_S = 300
# What the probed Pod's flows carry at least. The other one's acknowledgements, one for nearly each packet at so low a
# rate, and the probes have their part of the limit too: 93 and 92 % were measured.
USED_UP = 0.80
TEN = {"ingress": 10_000_000, "egress": 10_000_000}


def _many(lab: Lab, names: list[str]) -> None:
    items = [scenario.pod(name, namespace=SPACE, node=1, annotations=limits("10M", "10M")) for name in names]
    for item in items:
        item["metadata"]["labels"] = {"app": "many"}
    lab.cluster.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


def _running(lab: Lab) -> int:
    items = lab.cluster.kubectl_json("-n", SPACE, "get", "pods", "-l", "app=many")["items"]
    return sum(each["status"].get("phase") == "Running" for each in items)


@contextlib.contextmanager
def _removed(lab: Lab, timeout: int) -> Iterator[None]:
    delete = ("-n", SPACE, "delete", "pods", "-l", "app=many", f"--timeout={timeout}s")
    try:
        yield
    except BaseException:
        lab.kubectl(*delete, timeout=timeout + 10, check=False)  # what went wrong before is to be told
        raise
    lab.kubectl(*delete, timeout=timeout + 10)


def _unlimited(lab: Lab) -> list[str]:
    """Those of the many Pods that the kernel does not hold both limits for."""
    rows: dict[str, dict[str, int]] = {}
    for row in json.loads(scenario.observe(lab.cluster, 1, "--json")):
        rows.setdefault(row["pod"], {})[row["direction"]] = row["bits_per_second"]
    items = lab.cluster.kubectl_json("-n", SPACE, "get", "pods", "-l", "app=many")["items"]
    names = [f"{SPACE}/{item['metadata']['name']}" for item in items]
    return [name for name in names if rows.get(name) != TEN]


def _told(unlimited: list[str]) -> tuple[str, ...]:
    return (f"{len(unlimited)} Pods run without their limits, such as {unlimited[0]}",) if unlimited else ()


@registered(
    "many-at-once",
    f"{AT_ONCE} limited Pods created at one moment on one node, under traffic (CHAOS_PODS= for another number)",
    seconds=560,
)
def many_at_once(lab: Lab) -> Outcome:
    before = lab.held()
    counted = lab.metrics()
    with _removed(lab, 600), lab.metering() as meter:
        began = time.monotonic()
        _many(lab, [f"many-{number}" for number in range(AT_ONCE)])
        wait_for(f"{AT_ONCE} Pods", lambda: _running(lab) == AT_ONCE, 900, every=5)
        took, unlimited, now = time.monotonic() - began, _unlimited(lab), lab.metrics()
    after = wait_for_no_leak(lab, before)
    name = "ipvlan_bandwidth_sandbox_seconds"
    hooks, waited = (now[f"{name}_{of}"] - counted[f"{name}_{of}"] for of in ("count", "sum"))
    average_s = waited / max(hooks, 1)
    seen = (
        f"all run after {took:.0f} s, {AT_ONCE - len(unlimited)} of {AT_ONCE} with their limits; {hooks:.0f} sandboxes "
        f"waited {average_s * 1000:.0f} ms for them on average; {meter}; before: {before}; after: {after}"
    )
    return Outcome(seen, (*meter.lost, *before.leaks(after), *_told(unlimited), *_late(took, average_s)), meter.low)


def _late(took: float, average_s: float) -> list[Doubt]:
    """Sentences on Pods that took too long to run, and on sandboxes that waited too long."""
    late = []
    if took > AT_ONCE * EACH_S:
        late.append(Doubt(f"all ran only after {took:.0f} s, of {AT_ONCE * EACH_S} at most"))
    if average_s > WAITED_S:
        late.append(Doubt(f"sandboxes waited {average_s:.1f} s on average, of {WAITED_S:g} at most"))
    return late


@registered(
    "many-in-turn",
    f"{IN_TURN * (WAVES + 1)} limited Pods created and deleted, {IN_TURN} at a time; leaks are counted after the first",
    seconds=515,
)
def many_in_turn(lab: Lab) -> Outcome:
    unlimited = _wave(lab, 0)
    # After one wave, so that what is allocated once is not taken for a leak.
    before, began = wait_for_no_leak(lab, lab.held(), 5), time.monotonic()
    for wave in range(1, WAVES + 1):
        unlimited += _wave(lab, wave)
    took = time.monotonic() - began
    after = wait_for_no_leak(lab, before)
    made = IN_TURN * (WAVES + 1)
    seen = f"{made - len(unlimited)} of {made} ran with their limits, the last {IN_TURN * WAVES} within {took:.0f} s"
    return Outcome(f"{seen}; before: {before}; after: {after}", (*before.leaks(after), *_told(unlimited)))


def _wave(lab: Lab, wave: int) -> list[str]:
    """Those of its Pods that ran without their limits."""
    with _removed(lab, REMOVED_S):
        _many(lab, [f"wave-{wave}-{number}" for number in range(IN_TURN)])
        wait_for(f"wave {wave}", lambda: _running(lab) == IN_TURN, 120, every=1)
        return _unlimited(lab)


@registered(
    "probes",
    "kubelet probes a Pod every second (liveness and readiness, 1 s to answer) while its 100k are used up both ways",
    seconds=41,
    quick=True,
)
def probes(lab: Lab) -> Outcome:
    probe = {"tcpSocket": {"port": 5201}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 1}
    with lab.pod(
        "probed",
        annotations=limits("100k", "100k"),
        command=["iperf3", "-s"],
        livenessProbe={**probe, "initialDelaySeconds": 2},
        readinessProbe=probe,
    ) as pod:
        before = _probed(lab)
        flows = [
            traffic.start(lab.cluster, pod, f"{SPACE}/far", seconds=86400),
            traffic.start(lab.cluster, f"{SPACE}/far", pod, seconds=86400),
        ]
        time.sleep(30)
        after = _probed(lab)
        status = lab.cluster.pod(pod)["status"]["containerStatuses"][0]
        carried = [flow.end() for flow in flows]
    passed, failed = (after[result] - before[result] for result in ("successful", "failed"))
    # A probe has a second, which a node whose one CPU is busy may need for itself.
    lost = [Doubt(f"{failed:.0f} probes failed")] if failed else []
    if passed < 40:
        lost.append(Doubt(f"only {passed:.0f} probes were made in 30 s"))
    if status["restartCount"]:
        lost.append(Doubt("kubelet restarted the container"))
    means = " and ".join(f"{flow.mean * 1000:.0f}" for flow in carried)
    if not all(is_held_to(flow, 0.1, USED_UP) for flow in carried):
        said = f"its limits were not used up, or not kept to: {means} kbit/s of 100k were carried"
        lost.append(said if any(is_above(flow, 0.1) for flow in carried) else Doubt(said))
    return Outcome(
        f"{passed:.0f} probes passed, {failed:.0f} failed, while {means} kbit/s were sent and received", tuple(lost)
    )


def _probed(lab: Lab) -> dict[str, float]:
    """How many probes of that Pod passed and failed so far, as its kubelet counts."""
    counted = {"successful": 0.0, "failed": 0.0}
    for line in lab.kubectl("get", "--raw", "/api/v1/nodes/node1/proxy/metrics/probes").splitlines():
        if line.startswith("prober_probe_total") and 'pod="probed"' in line:
            for result in counted:
                if f'result="{result}"' in line:
                    counted[result] += float(line.rpartition(" ")[2])
    return counted
