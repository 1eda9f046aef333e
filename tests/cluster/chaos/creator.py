"""Creates Pods without a pause while something goes wrong, and keeps every failure with its words.

With `dry_run` a creation goes through the API server's admission, so through the webhook, and is not stored: at 50 a
second no node would keep up with anything else. Without, Pods are stored, and deleted at once; no scheduler minds them.
"""

import contextlib
import http
import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.cluster import scenario
from tests.cluster.api import Api
from tests.cluster.cluster import Cluster, ClusterError

WORKERS = 16
REQUEST_TIMEOUT_S = 30.0
NETWORK = "v1.multus-cni.io/default-network"


@dataclass(frozen=True, slots=True)
class Failure:
    """A creation that did not succeed: when, counted from the start, how long it took, and why."""

    at_s: float
    took_s: float
    why: str

    def __str__(self) -> str:
        return f"at {self.at_s:.1f} s, after {self.took_s:.1f} s: {self.why}"


@dataclass(slots=True)
class Creations:
    """What became of them."""

    made: int = 0
    failures: list[Failure] = field(default_factory=list)
    slowest_s: float = 0.0
    seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, began: float, why: str | None, since: float) -> None:
        """Count one that began, on the monotonic clock, then; `why` it failed, if it did."""
        took = time.monotonic() - began
        with self._lock:
            if why is None:
                self.made += 1
                self.slowest_s = max(self.slowest_s, took)
            else:
                self.failures.append(Failure(began - since, took, why))

    @property
    def lost(self) -> tuple[str, ...]:
        """A sentence on the failures, and none without any."""
        if not self.failures:
            return ()
        first = min(self.failures, key=lambda failure: failure.at_s)
        return (f"{len(self.failures)} of {self.made + len(self.failures)} creations, the first {first}",)

    def too_few(self, rate: float) -> tuple[str, ...]:
        """A sentence when less than half of what was to be made was made: what was done met no load then."""
        if self.made >= self.seconds * rate / 2:
            return ()
        return (f"only {self.made} creations succeeded in {self.seconds:.0f} s at {rate:g} a second",)

    def __str__(self) -> str:
        total = self.made + len(self.failures)
        rate = total / self.seconds if self.seconds else 0.0
        failed = f"{len(self.failures)} failed" if self.failures else "none failed"
        return f"{total} creations at {rate:.0f} a second, {failed}, the slowest {self.slowest_s * 1000:.0f} ms"


@contextlib.contextmanager
def creating(
    cluster: Cluster, namespace: str, *, rate: float, dry_run: bool = True, admitted: bool = True
) -> Iterator[Creations]:
    """Create Pods in a namespace as long as the block lasts.

    `admitted`: the webhook must have put the network and its label on each, or the creation counts as failed; if not,
    it must not have.
    """
    creations, tickets, stop = Creations(), itertools.count(), threading.Event()
    since = time.monotonic()
    collection = f"/api/v1/namespaces/{namespace}/pods"

    def one(api: Api, number: int) -> str | None:
        manifest = scenario.pod(f"created-{number}", namespace=namespace, annotations=scenario.limits("10M", "10M"))
        manifest["spec"]["schedulerName"] = "nobody"
        status, answer = api.call("POST", collection + ("?dryRun=All" if dry_run else ""), manifest)
        if status != http.HTTPStatus.CREATED:
            return f"{status} {answer.get('message', answer)}"
        if not dry_run:
            api.call("DELETE", f"{collection}/created-{number}", {"gracePeriodSeconds": 0})
        metadata = answer["metadata"]
        got = NETWORK in metadata["annotations"] and "ipvlan-bandwidth.io/managed" in metadata.get("labels", {})
        return None if got == admitted else "it was made, but the webhook had not seen it" if admitted else "changed"

    def work() -> None:
        with Api(cluster, timeout_s=REQUEST_TIMEOUT_S) as api:
            for number in tickets:
                if stop.wait(max(0.0, since + number / rate - time.monotonic())):
                    break
                began = time.monotonic()
                try:
                    why = one(api, number)
                except ClusterError as error:
                    why = str(error)
                creations.add(began, why, since)

    workers = [threading.Thread(target=work) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    try:
        yield creations
    finally:
        stop.set()
        for worker in workers:
            worker.join()
        creations.seconds = time.monotonic() - since
