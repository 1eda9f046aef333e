"""The API server and etcd gone, frozen, compacted: shaping goes on, and catches up."""

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster import scenario
from tests.cluster.chaos.lab import LIMIT, SPACE, Lab, told
from tests.cluster.chaos.registry import Outcome, registered
from tests.cluster.cluster import ClusterError, wait_for
from tests.cluster.scenario import EGRESS, INGRESS, OWN
from tests.losses import Doubt
from webhook.common.reflector import LIST_SPREAD_S, LONGEST_DELAY_S

API = "kube-apiserver"
SENDER = f"{SPACE}/sender"
# The reconciler waits so long at most until it asks the API server again and, where its watch cannot be resumed, until
# it lists; half as long again is for the emulated nodes.
CAUGHT_UP_S = 1.5 * (LONGEST_DELAY_S + max(LONGEST_DELAY_S, LIST_SPREAD_S))


def _answers(lab: Lab) -> bool:
    return lab.cluster.kubectl("get", "--raw", "/readyz", check=False, timeout=10).returncode == 0


def _until_answers(lab: Lab) -> None:
    def probe() -> bool:
        try:
            return _answers(lab)
        except ClusterError:
            return False

    wait_for("the API server", probe, 120)


@contextmanager
def _set_back(lab: Lab, annotation: str) -> Iterator[None]:
    """The sender is annotated so however the block ends: the next scenario, or a second attempt, begins with it."""
    try:
        yield
    finally:
        scenario.annotate(lab.cluster, SENDER, annotation)


def catches_up(lab: Lab) -> float:
    """Seconds until a limit changed now is in force; it is set back after that."""
    with _set_back(lab, f"{EGRESS}={LIMIT}M"):
        scenario.annotate(lab.cluster, SENDER, f"{EGRESS}=10M")
        took = lab.until_limited(SENDER, {"egress": 10_000_000})
    lab.until_limited(SENDER, {"egress": LIMIT * 1_000_000})
    return took


def too_late(took: float) -> tuple[Doubt, ...]:
    """A sentence on a change that was in force later than the reconciler's waits explain."""
    if took <= CAUGHT_UP_S:
        return ()
    return (Doubt(f"a changed limit was in force only after {took:.0f} s, of {CAUGHT_UP_S:.0f} at most"),)


def _frozen(lab: Lab, seconds: float) -> Outcome:
    with lab.metering() as meter:
        lab.cluster.disturb("freeze", API)
        try:
            time.sleep(seconds)
        finally:
            lab.cluster.disturb("thaw", API)
        _until_answers(lab)
    # Nodes that could not report count as lost, and with them what runs there, until they have reported again.
    lab.rolled_out("deployment/webhook")
    took = catches_up(lab)
    seen = f"{meter}; a limit changed afterwards was in force {took:.1f} s later"
    return Outcome(seen, (*meter.lost, *too_late(took)), meter.low)


@registered(
    "api-frozen", "the API server stops answering for 60 s, its connections half-open, under traffic", seconds=65
)
def frozen(lab: Lab) -> Outcome:
    return _frozen(lab, 60)


@registered("api-frozen-long", "the same for 5 minutes", seconds=310)
def frozen_long(lab: Lab) -> Outcome:
    return _frozen(lab, 300)


@registered(
    "api-killed",
    "the API server killed for 20 s, and the reconciler killed meanwhile, under traffic, after limits had changed",
    seconds=31,
)
def killed(lab: Lab) -> Outcome:
    changed = {"egress": LIMIT * 1_000_000, "ingress": 7_000_000}
    with _set_back(lab, f"{INGRESS}-"):
        scenario.annotate(lab.cluster, SENDER, f"{INGRESS}=7M")
        lab.until_limited(SENDER, changed)
        address = lab.cluster.pod(f"{OWN}/{lab.reconciler()}")["status"]["podIP"]
        with lab.metering() as meter:
            lab.cluster.disturb("kill", API)
            try:
                time.sleep(5)
                lab.node().run("pkill", "-9", "-f", "reconciler run")
                time.sleep(15)
                # kubelet waits for 2 s before it starts the reconciler again, and that looks at the kernel then
                kept = wait_for("the reconciler's limits", lambda: _limits_by_node(lab, address), 120)
            finally:
                lab.cluster.disturb("start", API)
            _until_answers(lab)
        lab.reconciler_ready()
    took = catches_up(lab)
    undone = () if kept == changed else (f"a limit that had changed: {kept} instead of {changed}",)
    seen = (
        f"{meter}; limits changed before were {told(kept)} meanwhile, of {told(changed)}; a limit changed "
        f"afterwards was in force {took:.1f} s later"
    )
    return Outcome(seen, (*meter.lost, *undone, *too_late(took)), meter.low)


def _limits_by_node(lab: Lab, address: str) -> dict[str, float]:
    """The sender's limits in bit/s by direction, as the reconciler tells them on its node, without the API server.

    Empty while it does not answer, and while it has not looked.
    """
    program = f"import urllib.request as u; print(u.urlopen('http://{address}:9745/metrics').read().decode())"
    page = lab.node().run(sys.executable, "-c", program, check=False).stdout
    space, name = SENDER.split("/")
    labels = rf'direction="(\w+)",namespace="{space}",pod="{name}"'
    row = rf"^ipvlan_bandwidth_limit_bits_per_second{{{labels}}} (\S+)$"
    return {direction: float(rate) for direction, rate in re.findall(row, page, re.MULTILINE)}


@registered(
    "watch-expired",
    "the reconciler misses a change, as it hangs; etcd is compacted and the API server restarted, so that its watch "
    "cannot be resumed (410)",
    seconds=9,
    quick=True,
)
def expired(lab: Lab) -> Outcome:
    process = lab.node().run("pgrep", "-o", "-f", "reconciler run").stdout.strip()
    with _set_back(lab, f"{EGRESS}={LIMIT}M"):
        lab.node().run("kill", "-STOP", process)
        try:
            scenario.annotate(lab.cluster, SENDER, f"{EGRESS}=10M")
            for number in range(20):
                filler = scenario.pod(f"filler-{number}", namespace=lab.plain) | {"spec": _NOWHERE}
                lab.cluster.apply(json.dumps(filler))
            lab.kubectl("-n", lab.plain, "delete", "pod", "--all", "--force", "--grace-period=0")
            lab.cluster.disturb("compact")
            lab.cluster.disturb("kill", API)
            lab.cluster.disturb("start", API)
            _until_answers(lab)
        finally:
            lab.node().run("kill", "-CONT", process)
        took = lab.until_limited(SENDER, {"egress": 10_000_000})
    lab.until_limited(SENDER, {"egress": LIMIT * 1_000_000})
    logs = lab.kubectl("-n", OWN, "logs", lab.reconciler(), "--since=90s")
    gone = "too old resource version" in logs or "Expired" in logs
    seen = f"the missed change was in force {took:.1f} s after the reconciler ran on"
    kept = () if gone else (Doubt("inconclusive: the watch did not expire"),)
    return Outcome(seen, (*kept, *too_late(took)))


_NOWHERE = {"schedulerName": "nobody", "containers": [{"name": "main", "image": scenario.IMAGE}]}
