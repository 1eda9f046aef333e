"""What a Pod's author can do to others through the API server."""

import threading
import time

from tests.cluster import scenario
from tests.cluster.chaos.creator import Api
from tests.cluster.chaos.lab import SPACE, Lab
from tests.cluster.chaos.registry import Outcome
from tests.cluster.chaos.registry import scenario as registered
from tests.cluster.scenario import EGRESS, limits

RATE, SECONDS = 50, 20


@registered(
    "annotations-fast",
    f"one Pod's limit changed {RATE} times a second for {SECONDS} s; another Pod's changed meanwhile",
    seconds=50,
    quick=True,
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
        lost.append(f"nothing: but only {len(changes)} changes were made, which shows little")
    seen = (
        f"{len(changes)} changes; the other Pod's was in force {took:.1f} s after, the last of the restless Pod's "
        f"{last:.1f} s after; {len(ours)} events on it"
    )
    return Outcome(seen, tuple(lost))


def _write(lab: Lab, name: str, changes: list[int]) -> None:
    """Change the Pod's egress limit at that rate; the numbers, in Mbit/s, of those that succeeded are added."""
    api, since = Api(lab.cluster.paths.kubeconfig), time.monotonic()
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
    api.close()
