"""An etcd and a kube-apiserver alone, on loopback: for tests of what depends on nothing else, and that break both."""

import json
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.cluster.commands import ClusterError, run, wait_for
from tests.cluster.launch import program
from tests.cluster.pki import Authority, kubeconfig
from tests.ports import free_ports

UP_TIMEOUT_S = 90.0


class ApiOnly:
    """Both processes, and the files that they leave in a folder. `kubeconfig` is an administrator's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        *urls, self._port = free_ports(3)
        self._etcd_url, self._peer_url = (f"http://127.0.0.1:{port}" for port in urls)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        authority = Authority.create()
        key, certificate = authority.issue("kube-apiserver", addresses=["127.0.0.1"])
        accounts = ec.generate_private_key(ec.SECP256R1())
        pem, spki = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        private = accounts.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        files = {"ca.crt": authority.pem, "api.key": key, "api.crt": certificate, "accounts.key": private}
        for name, data in {**files, "accounts.pub": accounts.public_key().public_bytes(pem, spki)}.items():
            (folder / name).write_bytes(data)
        self.kubeconfig.write_text(kubeconfig(f"https://127.0.0.1:{self._port}", authority, "admin", "system:masters"))

    def start(self) -> None:
        """Start what does not run, and wait until it answers."""
        self._start("etcd", *self._etcd())
        self._start("kube-apiserver", *self._api())
        ready = [str(program("kubectl")), "--kubeconfig", str(self.kubeconfig), "get", "--raw", "/readyz"]

        def is_ready() -> bool:
            for name, process in self._running.items():
                if process.poll() is not None:
                    raise ClusterError(f"{name} ended: {(self.folder / f'{name}.log').read_text()[-1500:]}")
            return subprocess.run(ready, capture_output=True, check=False, timeout=20).returncode == 0

        wait_for("the API server", is_ready, UP_TIMEOUT_S)

    def kubectl(self, *arguments: str, text: str = "") -> str:
        """What kubectl prints, as an administrator. Raises ClusterError when it fails."""
        command = [str(program("kubectl")), "--kubeconfig", str(self.kubeconfig), *arguments]
        return run(command, f"kubectl {' '.join(arguments)}", stdin=text, timeout=60).stdout

    def kill(self, *names: str) -> None:
        """End processes without a chance to say goodbye."""
        for name in names or tuple(self._running):
            process = self._running.pop(name)
            process.kill()
            process.wait()

    def stand_still(self, *, still: bool) -> None:
        """Stop the API server where it is, its connections open, or let it go on."""
        self._running["kube-apiserver"].send_signal(signal.SIGSTOP if still else signal.SIGCONT)

    def compact(self) -> None:
        """Make etcd forget all but what is now."""
        put = self._ask("/v3/kv/put", {"key": "Y29tcGFjdA==", "value": "MQ=="})
        self._ask("/v3/kv/compaction", {"revision": put["header"]["revision"], "physical": True})

    def back_up(self) -> Path:
        """A copy of what etcd holds; only while it does not run."""
        copy = self.folder / "etcd-copy"
        shutil.copytree(self.folder / "etcd", copy)
        return copy

    def restore(self, copy: Path) -> None:
        """Put a copy in the place of what etcd holds; only while it does not run."""
        shutil.rmtree(self.folder / "etcd")
        copy.rename(self.folder / "etcd")

    def _ask(self, path: str, body: dict[str, object]) -> dict[str, dict[str, str]]:
        request = urllib.request.Request(self._etcd_url + path, json.dumps(body).encode())  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - as above
            said: dict[str, dict[str, str]] = json.load(answer)
        return said

    def _start(self, name: str, *arguments: str) -> None:
        if name not in self._running:
            with (self.folder / f"{name}.log").open("ab") as log:
                command = [str(program(name)), *arguments]
                self._running[name] = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)

    def _etcd(self) -> tuple[str, ...]:
        return (
            f"--data-dir={self.folder}/etcd",
            "--unsafe-no-fsync",
            f"--listen-client-urls={self._etcd_url}",
            f"--advertise-client-urls={self._etcd_url}",
            f"--listen-peer-urls={self._peer_url}",
            f"--initial-advertise-peer-urls={self._peer_url}",
            f"--initial-cluster=default={self._peer_url}",
        )

    def _api(self) -> tuple[str, ...]:
        folder = self.folder
        return (
            f"--etcd-servers={self._etcd_url}",
            f"--tls-cert-file={folder}/api.crt",
            f"--tls-private-key-file={folder}/api.key",
            f"--client-ca-file={folder}/ca.crt",
            f"--service-account-key-file={folder}/accounts.pub",
            f"--service-account-signing-key-file={folder}/accounts.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            # A Pod needs a ServiceAccount then, and the controller that makes it does not run.
            "--disable-admission-plugins=ServiceAccount",
            "--bind-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--secure-port={self._port}",
        )
