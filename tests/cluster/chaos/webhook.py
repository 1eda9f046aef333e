"""The webhook rolled and lost: no creation fails that need not, and other namespaces never notice."""

import json
import time

from tests.cluster import scenario
from tests.cluster.chaos.lab import SPACE, Lab, told
from tests.cluster.chaos.registry import Outcome, registered
from tests.cluster.cluster import wait_for
from tests.cluster.scenario import OWN, WEBHOOK
from tests.losses import Doubt

RATE, BARE_RATE = 50, 5
# Until a killed replica's successor serves, and Pods that were refused meanwhile run: 14 s were measured. Controllers
# try again within as long as the outage was.
RECOVERED_S = 60


@registered(
    "webhook-rolled",
    f"rolling update of the webhook under {RATE} Pod creations a second (as server-side dry runs, which pass admission "
    "and cost no node)",
    seconds=120,
    quick=True,
)
def rolled(lab: Lab) -> Outcome:
    with lab.creating(rate=RATE) as creations:
        time.sleep(3)
        lab.kubectl("-n", OWN, "rollout", "restart", "deployment/webhook")
        lab.rolled_out("deployment/webhook")
        # The last of the old replicas serves on for a while after the new ones are there: until the end of its grace of
        # 115 s, and where containerd does not come to clean up, kubelet asks it again two minutes later.
        wait_for("the old replicas' end", lambda: len(lab.cluster.pods(OWN, WEBHOOK)) == 2, 300)
    return Outcome(str(creations), (*creations.lost, *creations.too_few(RATE)))


@registered(
    "webhook-deleted",
    "both replicas of the webhook killed at once; a Deployment made in an opted-in namespace at that moment, bare Pods "
    "created there and in another namespace all along",
    seconds=22,
    quick=True,
)
def deleted(lab: Lab) -> Outcome:
    name = "during-outage"
    before = _replicas(lab)
    with lab.creating_elsewhere(rate=BARE_RATE) as elsewhere, lab.creating(rate=BARE_RATE) as here:
        time.sleep(1)
        began = time.monotonic()
        force = ("--force", "--grace-period=0", "--wait=false")
        lab.kubectl("-n", OWN, "delete", "pod", "-l", WEBHOOK, *force)
        workload = scenario.deployment(name, namespace=SPACE, annotations=scenario.limits("10M", "10M"))
        lab.cluster.apply(json.dumps(workload))
        try:
            lab.kubectl("-n", SPACE, "rollout", "status", f"deployment/{name}", "--timeout=150s", timeout=160)
            took = time.monotonic() - began
            lab.rolled_out("deployment/webhook")
            kept = before & _replicas(lab)
            pods = scenario.pods_of(lab.cluster, SPACE, name).values()
            limits = [lab.limits_of(pod) for pod in pods]
        finally:
            lab.kubectl("-n", SPACE, "delete", "deployment", name, "--wait=false", check=False)
    refused = [failure.at_s for failure in here.failures]
    refused_s = max(refused) - min(refused) if refused else 0.0
    span = f"{refused_s:.1f} s" if refused else "no time"
    lost = [*here.bypassed, *here.too_few(BARE_RATE), *elsewhere.lost_elsewhere(BARE_RATE)]
    if kept:
        lost.append(Doubt(f"inconclusive: of the replicas, {len(kept)} of {len(before)} lived on"))
    if limits != [{"ingress": 10_000_000, "egress": 10_000_000}] * 2:
        lost.append(f"the Deployment's Pods are limited to {limits}")
    if took > RECOVERED_S:
        lost.append(Doubt(f"the Deployment's Pods ran only {took:.0f} s after, of {RECOVERED_S} at most"))
    if refused_s > RECOVERED_S:
        lost.append(Doubt(f"bare Pods were refused during {refused_s:.0f} s, of {RECOVERED_S} at most"))
    seen = (
        f"the Deployment's Pods ran {took:.0f} s after, limited to {' and '.join(map(told, limits))}; {len(refused)} "
        f"bare Pods were refused during {span}; elsewhere {elsewhere}"
    )
    return Outcome(seen, tuple(lost))


def _replicas(lab: Lab) -> set[str]:
    """The names of the webhook's Pods."""
    return {each["metadata"]["name"] for each in scenario.webhooks(lab.cluster)}
