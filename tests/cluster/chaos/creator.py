"""Creates Pods without a pause while something goes wrong, and keeps every failure with its words.

With `dry_run` a creation goes through the API server's admission, so through the webhook, and is not stored: at 50 a
second no node would keep up with anything else. Without, Pods are stored, and deleted at once; no scheduler minds them.
"""

import contextlib
import http
import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.cluster import scenario
from tests.cluster.api import Api
from tests.cluster.cluster import Cluster, ClusterError
from tests.cluster.scenario import DEFAULT_NETWORK, MANAGED
from tests.losses import Doubt

WORKERS = 16
REQUEST_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Failure:
    """A creation that did not come out as it should: when, counted from the start, how long it took, and why."""

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
    """Not made: refused, or without an answer. An outage of the webhook has some."""
    amiss: list[Failure] = field(default_factory=list)
    """Made past the webhook where it has to see them, or changed where it has not: lost whatever was done."""
    slowest_s: float = 0.0
    seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def tried(self) -> int:
        """All of them, however they came out."""
        return self.made + len(self.failures) + len(self.amiss)

    def add(self, began: float, since: float, *, failed: str = "", amiss: str = "") -> None:
        """Count one that began, on the monotonic clock, then, and why it failed or was made amiss, if so."""
        took = time.monotonic() - began
        with self._lock:
            if failed:
                self.failures.append(Failure(began - since, took, failed))
            elif amiss:
                self.amiss.append(Failure(began - since, took, amiss))
            else:
                self.made += 1
                self.slowest_s = max(self.slowest_s, took)

    @property
    def lost(self) -> tuple[str, ...]:
        """A sentence on those that failed or were made amiss, and none without any."""
        return self._told([*self.failures, *self.amiss])

    @property
    def bypassed(self) -> tuple[str, ...]:
        """As `lost`, of those alone that were made amiss: where some may fail."""
        return self._told(self.amiss)

    def _told(self, those: Sequence[Failure]) -> tuple[str, ...]:
        if not those:
            return ()
        first = min(those, key=lambda failure: failure.at_s)
        return (f"{len(those)} of {self.tried} creations, the first {first}",)

    def too_few(self, rate: float) -> tuple[Doubt, ...]:
        """A sentence when less than half of what was to be tried was tried: what was done met no load then."""
        if self.tried >= self.seconds * rate / 2:
            return ()
        return (Doubt(f"only {self.tried} creations were tried in {self.seconds:.0f} s at {rate:g} a second"),)

    def lost_elsewhere(self, rate: float) -> tuple[str, ...]:
        """`lost` and `too_few` of a namespace that nothing is done to; doubts stay such."""
        return tuple(type(each)(f"in another namespace: {each}") for each in (*self.lost, *self.too_few(rate)))

    def __str__(self) -> str:
        rate = self.tried / self.seconds if self.seconds else 0.0
        failed = f"{len(self.failures)} failed" if self.failures else "none failed"
        failed += f", {len(self.amiss)} made amiss" if self.amiss else ""
        return f"{self.tried} creations at {rate:.0f} a second, {failed}, the slowest {self.slowest_s * 1000:.0f} ms"


def _amiss(annotations: Mapping[str, str], labels: Mapping[str, str], *, admitted: bool) -> str:
    """What is wrong with a Pod that was made; empty where nothing is."""
    put = DEFAULT_NETWORK in annotations, MANAGED in labels
    if admitted:
        return "" if all(put) else "it was made, but the webhook had not seen it"
    return "it was made, but the webhook had changed it" if any(put) else ""


@contextlib.contextmanager
def creating(
    cluster: Cluster, namespace: str, *, rate: float, dry_run: bool = True, admitted: bool = True
) -> Iterator[Creations]:
    """Create Pods in a namespace as long as the block lasts.

    `admitted`: the webhook must have put the network and its label on each, or it was made amiss; if not, it must not
    have.
    """
    creations, tickets, stop = Creations(), itertools.count(), threading.Event()
    since = time.monotonic()
    collection = f"/api/v1/namespaces/{namespace}/pods"

    def one(api: Api, number: int) -> tuple[str, str]:
        """Why it failed, and what was amiss with what was made; empty where all is well."""
        manifest = scenario.pod(f"created-{number}", namespace=namespace, annotations=scenario.limits("10M", "10M"))
        manifest["spec"]["schedulerName"] = "nobody"
        status, answer = api.call("POST", collection + ("?dryRun=All" if dry_run else ""), manifest)
        if status != http.HTTPStatus.CREATED:
            return f"{status} {answer.get('message', answer)}", ""
        if not dry_run:
            api.call("DELETE", f"{collection}/created-{number}", {"gracePeriodSeconds": 0})
        metadata = answer["metadata"]
        return "", _amiss(metadata["annotations"], metadata.get("labels", {}), admitted=admitted)

    def work() -> None:
        with Api(cluster, timeout_s=REQUEST_TIMEOUT_S) as api:
            for number in tickets:
                if stop.wait(max(0.0, since + number / rate - time.monotonic())):
                    break
                began = time.monotonic()
                try:
                    failed, amiss = one(api, number)
                except ClusterError as error:
                    failed, amiss = str(error), ""
                creations.add(began, since, failed=failed, amiss=amiss)

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
