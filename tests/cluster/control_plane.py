"""etcd and kube-apiserver alone, on the loopback of the caller's own network namespace: no nodes, no other controller.

with ControlPlane(folder) as control_plane:
    control_plane.add_namespace("shop", {"ipvlan-bandwidth.io/network": "kube-system.ipvlan"})
    control_plane.run_webhook("a", 8443)

Whoever runs this does so under `ALONE`: in a network namespace, where nothing else has these addresses and ports, and
in a namespace of processes, all of which the kernel ends with the first.
"""

import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import yaml

from tests.cluster import flags, launch, layout, pki

ALONE = ("unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child")
ADDRESS = "192.0.2.1"  # RFC 5737: nobody's. Endpoints may not be at 127.0.0.1
PORT = 6443
OURS = "ipvlan-bandwidth"
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
ENDPOINTS = f"/apis/discovery.k8s.io/v1/namespaces/{OURS}/endpointslices"
READY_TIMEOUT_S = 60.0
LOG_TAIL_BYTES = 1500

T = TypeVar("T")


def run_alone(module: str, timeout_s: float) -> Any:
    """Run a module under ALONE: the JSON that it prints. Fails the test with what it says when it fails."""
    command = [*ALONE, sys.executable, "-m", module]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


class ControlPlaneError(Exception):
    """It did not come up, or does not do what is asked. The text is for a person."""


class ControlPlane:
    """Up within the block. Everything it writes is in `folder`, which should be in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ending: list[subprocess.Popen[bytes]] = []
        self._context: ssl.SSLContext | None = None
        self._authority = pki.Authority.create()

    @property
    def kubeconfig(self) -> Path:
        """An administrator's. Beside it are ca.crt, admin.crt and admin.key."""
        return self.folder / "kubeconfig"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def run(self, name: str, command: Sequence[str], environ: Mapping[str, str] | None = None) -> Path:
        """Start a program that ends with the block; the file with what it prints."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            self._processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **(environ or {})}
            )
        return log

    def cpu_seconds(self, name: str) -> float:
        """What a program that runs here has used so far."""
        threads = Path(f"/proc/{self._processes[name].pid}/task").iterdir()
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object. Raises ControlPlaneError."""
        return self._call("POST", path, body)

    def get(self, path: str) -> dict[str, Any]:
        """Read an object. Raises ControlPlaneError."""
        return self._call("GET", path, None)

    def add_namespace(self, name: str, labels: Mapping[str, str]) -> None:
        """A namespace in which Pods can be created: with the ServiceAccount that a controller would make."""
        self.post("/api/v1/namespaces", {"metadata": {"name": name, "labels": dict(labels)}})
        self.post(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})

    def add_service(self, name: str) -> None:
        """A Service of ours that has no endpoint yet."""
        body = {"metadata": {"name": name}, "spec": {"ports": [{"port": 443}]}}
        self.post(f"/api/v1/namespaces/{OURS}/services", body)

    def add_endpoint(self, service: str, port: int) -> None:
        """What a controller would do when a Pod behind the Service gets ready."""
        self.post(
            ENDPOINTS,
            {
                "metadata": {"name": f"{service}-{port}", "labels": {"kubernetes.io/service-name": service}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}],
                "ports": [{"port": port, "protocol": "TCP"}],
            },
        )

    def remove_endpoint(self, service: str, port: int) -> None:
        """What a controller would do when that Pod begins to end."""
        self.delete(f"{ENDPOINTS}/{service}-{port}")

    def add_configuration(self) -> dict[str, Any]:
        """Ours, from the manifests."""
        (ours,) = yaml.safe_load_all((layout.PROJECT / "manifests" / "base" / "webhook-configuration.yaml").read_text())
        return self.post(CONFIGURATIONS, ours)

    def kubeconfig_of(self, user: str) -> Path:
        """That of a user who may do what RBAC says and no more."""
        path = self.folder / f"{user.rpartition(':')[2]}.kubeconfig"
        path.write_text(pki.kubeconfig(f"https://{ADDRESS}:{PORT}", self._authority, user), encoding="utf-8")
        return path

    def run_webhook(self, name: str, port: int, *arguments: str, kubeconfig: Path | None = None) -> Path:
        """A replica of ours; its health port is the next one. It is ready when `wait_until_ready` returns.

        It is an administrator, but for another `kubeconfig`.
        """
        serve = ["-m", "webhook", "serve", f"--listen={ADDRESS}", f"--port={port}", f"--health-port={port + 1}"]
        return self.run(name, [sys.executable, *serve, *arguments], {"KUBECONFIG": str(kubeconfig or self.kubeconfig)})

    def wait_until_ready(self, port: int) -> None:
        """The replica at that port is."""

        def attempt() -> None:
            urllib.request.urlopen(f"http://{ADDRESS}:{port + 1}/readyz", timeout=5).close()

        self.wait_until("webhook that is ready", attempt)

    def signal(self, name: str, number: int) -> None:
        """To a program that runs here; from now on it may end."""
        process = self._processes.pop(name)
        self._ending.append(process)
        process.send_signal(number)

    def delete(self, path: str) -> None:
        """Delete an object, or all of a collection. Raises ControlPlaneError."""
        self._call("DELETE", path, None)

    def _start(self) -> None:
        subprocess.run(
            ["ip", "-batch", "-"], input=f"link set lo up\naddress add {ADDRESS}/32 dev lo\n", text=True, check=True
        )
        self._write_pki()
        self.run("etcd", [str(launch.program("etcd")), *flags.etcd(self.folder / "etcd")])
        more = (
            "--authorization-mode=Node,RBAC",
            f"--advertise-address={ADDRESS}",
            # Webhooks are reached at their endpoints' addresses: there is no kube-proxy.
            "--enable-aggregator-routing=true",
        )
        api_server = flags.kube_apiserver(self.folder, *more, address=ADDRESS, port=PORT)
        self.run("kube-apiserver", [str(launch.program("kube-apiserver")), *api_server])
        self.wait_until("API server that is ready", lambda: self.get("/readyz"))

    def wait_until(self, what: str, attempt: Callable[[], T]) -> T:
        """What `attempt` gives as soon as it raises no ControlPlaneError. Raises one in the end."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            for each, process in self._processes.items():
                if process.poll() is not None:
                    tail = (self.folder / f"{each}.log").read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
                    raise ControlPlaneError(f"{each} ended with status {process.returncode}:\n{tail}")
            try:
                return attempt()
            except (ControlPlaneError, OSError) as error:
                if time.monotonic() > deadline:
                    raise ControlPlaneError(f"no {what} within {READY_TIMEOUT_S:.0f} s: {error}") from error
            time.sleep(0.1)

    def _write_pki(self) -> None:
        authority = self._authority
        pki.write_api_server(self.folder, authority, ("127.0.0.1", ADDRESS))
        pki.write_pair(self.folder, "admin", authority.issue("admin", "system:masters"))
        self.kubeconfig.write_text(
            pki.kubeconfig(f"https://{ADDRESS}:{PORT}", authority, "admin", "system:masters"), encoding="utf-8"
        )
        self._context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        self._context.load_cert_chain(self.folder / "admin.crt", self.folder / "admin.key")

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        request = urllib.request.Request(
            f"https://{ADDRESS}:{PORT}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, context=self._context, timeout=30) as answer:  # noqa: S310 - as above
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise ControlPlaneError(f"{method} {path}: {error.code} {error.read().decode()}") from error
        return json.loads(text) if text.startswith(b"{") else {}

    def _end(self) -> None:
        for process in [*self._ending, *reversed(self._processes.values())]:
            process.kill()
            process.wait()
