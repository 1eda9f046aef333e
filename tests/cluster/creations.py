"""Pods created all the time, as controllers do it: each is tried again until it is there, and every refusal counts.

They are real, and admitted like any other, but no scheduler takes them: no node has anything to do with them.
"""

import http
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.cluster import scenario
from tests.cluster.api import Api
from tests.cluster.cluster import Cluster, ClusterError


@dataclass
class Creations:
    """What became of the Pods: how many were made, what was refused on the way, and how long the slowest took."""

    made: int = 0
    refusals: list[str] = field(default_factory=list)
    unmade: list[str] = field(default_factory=list)
    """Not made at all."""
    unreviewed: list[str] = field(default_factory=list)
    """Made, but the webhook had not seen them."""
    longest_s: float = 0.0

    @property
    def lost(self) -> list[str]:
        """What must not happen to a Pod: it was not made, or made without the webhook."""
        return [*self.unmade, *self.unreviewed]


class Creating:
    """A block in which `workers` threads create Pods in an opted-in namespace, one after another each.

    with Creating(cluster, "shop") as creations:
        ...
    nothing_lost(creations.lost)
    """

    def __init__(
        self, cluster: Cluster, namespace: str, *, workers: int = 2, pause_s: float = 0.1, patience_s: float = 60
    ) -> None:
        self._cluster = cluster
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._namespace = namespace
        self._pause_s = pause_s
        self._patience_s = patience_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(workers)]
        self.creations = Creations()

    def __enter__(self) -> Creations:
        for thread in self._threads:
            thread.start()
        return self.creations

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, worker: int) -> None:
        number = 0
        with Api(self._cluster) as api:
            while not self._stop.is_set():
                number += 1
                name = f"created-{worker}-{number}"
                self._create(api, name)
                with suppress(ClusterError):
                    api.call("DELETE", f"{self._path}/{name}?gracePeriodSeconds=0")
                self._stop.wait(self._pause_s)

    def _create(self, api: Api, name: str) -> None:
        pod = scenario.pod(name, namespace=self._namespace, annotations=scenario.limits("0.1G"))
        pod["spec"]["schedulerName"] = "nobody"
        began = time.monotonic()
        while True:
            try:
                status, answer = api.call("POST", self._path, pod)
            except ClusterError as error:
                status, answer = 0, {"message": str(error)}
            took = time.monotonic() - began
            if status == http.HTTPStatus.CREATED:
                self._made(name, answer, took)
                return
            with self._lock:
                self.creations.refusals.append(f"{name} after {took:.1f} s: {answer.get('message')}")
                if took > self._patience_s:
                    self.creations.unmade.append(f"{name} was not made in {took:.0f} s")
                    return
            time.sleep(0.1)

    def _made(self, name: str, pod: Any, took_s: float) -> None:
        with self._lock:
            self.creations.made += 1
            self.creations.longest_s = max(self.creations.longest_s, took_s)
            if pod["metadata"]["annotations"].get(scenario.INGRESS) != "100M":
                self.creations.unreviewed.append(f"{name} was made without having been admitted")
