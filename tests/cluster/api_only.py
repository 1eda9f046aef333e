"""An etcd and a kube-apiserver alone, on loopback: for tests of what depends on nothing else, and that break both."""

import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import control, flags
from tests.cluster.commands import ClusterError, run, wait_for
from tests.cluster.launch import program
from tests.cluster.pki import Authority, kubeconfig, write_api_server
from tests.ports import free_ports

UP_TIMEOUT_S = 90.0


class ApiOnly:
    """Both processes, and the files that they leave in a folder. `kubeconfig` is an administrator's.

    Neither outlives the thread that started it, so nor a test run that is killed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        *urls, self._port = free_ports(3)
        self._etcd_url, self._peer_url = (f"http://127.0.0.1:{port}" for port in urls)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        authority = Authority.create()
        write_api_server(folder, authority, ("127.0.0.1",))
        self.kubeconfig.write_text(kubeconfig(f"https://127.0.0.1:{self._port}", authority, "admin", "system:masters"))

    def start(self) -> None:
        """Start what does not run, and wait until it answers."""
        self._start("etcd", flags.etcd(self.folder / "etcd", client=self._etcd_url, peer=self._peer_url))
        more = (
            "--authorization-mode=RBAC",
            # A Pod needs a ServiceAccount then, and the controller that makes it does not run.
            "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none",
        )
        api_server = flags.kube_apiserver(self.folder, *more, address="127.0.0.1", port=self._port, etcd=self._etcd_url)
        self._start("kube-apiserver", api_server)
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
        """Make etcd forget all but what is now, so that no version the API server has told can be resumed from."""
        control.compact(self._etcd_url)

    def back_up(self) -> Path:
        """A copy of what etcd holds; only while it does not run."""
        copy = self.folder / "etcd-copy"
        shutil.copytree(self.folder / "etcd", copy)
        return copy

    def restore(self, copy: Path) -> None:
        """Put a copy in the place of what etcd holds; only while it does not run."""
        shutil.rmtree(self.folder / "etcd")
        copy.rename(self.folder / "etcd")

    def _start(self, name: str, arguments: Sequence[str]) -> None:
        if name not in self._running:
            with (self.folder / f"{name}.log").open("ab") as log:
                command = ["setpriv", "--pdeathsig", "KILL", "--", str(program(name)), *arguments]
                self._running[name] = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
