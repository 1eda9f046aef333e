"""Pods created all the time, as controllers do it: each is tried again until it is there, and every refusal counts.

They are real, and admitted like any other, but no scheduler takes them: no node has anything to do with them.
"""

import base64
import http.client
import json
import ssl
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from tests.cluster import scenario
from tests.cluster.cluster import Cluster, ClusterError


class Api:
    """One connection to the API server as an administrator, kept open within a `with` block.

    A kubectl for each Pod would cost too much CPU.
    """

    def __init__(self, cluster: Cluster) -> None:
        config = json.loads(cluster.paths.kubeconfig.read_text())
        server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._tls = ssl.create_default_context(
            cadata=base64.b64decode(server["certificate-authority-data"]).decode("ascii")
        )
        with tempfile.NamedTemporaryFile() as file:
            for part in ("client-certificate-data", "client-key-data"):
                file.write(base64.b64decode(user[part]) + b"\n")
            file.flush()
            self._tls.load_cert_chain(file.name)
        address = urlsplit(server["server"])
        self._host, self._port = address.hostname or "", address.port or 443
        self._connection: http.client.HTTPSConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """The status and the answer; raises ClusterError when there is none."""
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(self._host, self._port, timeout=40, context=self._tls)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        try:
            self._connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = self._connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._close()
            raise ClusterError(f"{method} {path}: {error}") from error

    def get(self, path: str) -> Any:
        """An object; None when there is none. Raises ClusterError."""
        status, answer = self.call("GET", path)
        if status == http.HTTPStatus.NOT_FOUND:
            return None
        if status != http.HTTPStatus.OK:
            raise ClusterError(f"GET {path}: {status} {answer.get('message')}")
        return answer


@dataclass
class Creations:
    """What became of the Pods: how many were made, what was refused on the way, and how long the slowest took."""

    made: int = 0
    refusals: list[str] = field(default_factory=list)
    # Not made at all, or made without having been admitted.
    lost: list[str] = field(default_factory=list)
    longest_s: float = 0.0


class Creating:
    """A block in which `workers` threads create Pods in an opted-in namespace, one after another each.

    with Creating(cluster, "shop") as creations:
        ...
    assert not creations.lost
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
                    self.creations.lost.append(f"{name} was not made in {took:.0f} s")
                    return
            time.sleep(0.1)

    def _made(self, name: str, pod: Any, took_s: float) -> None:
        with self._lock:
            self.creations.made += 1
            self.creations.longest_s = max(self.creations.longest_s, took_s)
            if pod["metadata"]["annotations"].get(scenario.INGRESS) != "100M":
                self.creations.lost.append(f"{name} was made without having been admitted")
