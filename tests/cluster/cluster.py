"""The embedded cluster as an object: two nodes, a real control plane, and ways to run things on and in them.

with Cluster("example").running() as cluster:
    cluster.apply(manifest)
    cluster.wait_ready("default/a")
    cluster.enter("default/a", "iperf3", "-s", "-D")
"""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.cluster import control, disk, launch, layout
from tests.cluster.commands import ClusterError, Node, TimedOut, run, wait_for
from tests.cluster.layout import HERE, PROJECT, Layout

__all__ = ["Cluster", "ClusterError", "Node", "TimedOut", "wait_for"]

DEFAULT_NAME = "default"
UP_TIMEOUT_S = 180.0


def _silent(_line: str) -> None:
    pass


@dataclass(slots=True)
class Cluster:
    """A cluster by its name; up or not, started by this process or another."""

    name: str = DEFAULT_NAME
    say: Callable[[str], None] = _silent
    _launched: launch.Launched | None = field(default=None, init=False)

    @property
    def paths(self) -> Layout:
        """Its files: kubeconfig, logs."""
        return Layout(self.name)

    @contextlib.contextmanager
    def running(self) -> Iterator["Cluster"]:
        """Up within the block, and gone after it."""
        self.up()
        try:
            yield self
        finally:
            self.down()

    def up(self, *, detached: bool = False) -> None:
        """Start it and wait until both nodes are Ready. It ends with this process, unless detached.

        The images are the test's own (`localhost/tools:1`) and all of build/images/*.tar. MULTUS and EXTRA_CNI_BIN in
        the environment put the real Multus and further CNI plugins on the nodes.
        Raises ClusterError.
        """
        if os.geteuid() != 0:
            raise ClusterError("the embedded cluster needs root, for namespaces, mounts and taps")
        began = time.monotonic()
        images = sorted((PROJECT / "build" / "images").glob("*.tar"))
        self._tell(f"images: tools, {', '.join(path.stem for path in images) or 'and no others in build/images'}")
        lock = launch.take_lock(self.paths)
        if lock is None:
            raise ClusterError(f"cluster {self.name} is up already; `python -m tests.cluster down` ends it")
        try:
            prepared = disk.prepare(launch.program("containerd").parent, images)
            self._tell(f"disk ready ({time.monotonic() - began:.0f} s), starting control plane and nodes")
            self._launched = launch.start(self.paths, lock, prepared, detached=detached)
            self._wait_up()
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(lock)
            self.down()
            raise
        self._tell(f"both nodes Ready ({time.monotonic() - began:.0f} s)")

    def _tell(self, line: str) -> None:
        self.say(f"cluster {self.name}: {line}")

    def _wait_up(self) -> None:
        def api() -> bool:
            self._check_alive()
            return self.kubectl("get", "--raw", "/readyz", check=False, timeout=10).returncode == 0

        def definitions() -> bool:
            self._check_alive()
            return self.kubectl("apply", "-f", str(HERE / "addons" / "ipvlan.yaml"), check=False).returncode == 0

        def ready() -> bool:
            self._check_alive()
            items = self.kubectl_json("get", "nodes")["items"]
            conditions = [condition for item in items for condition in item["status"].get("conditions", [])]
            up = [c for c in conditions if c["type"] == "Ready" and c["status"] == "True"]
            accounts = self.kubectl("get", "serviceaccount", "default", check=False)
            return len(up) == len(layout.NODES) and accounts.returncode == 0

        try:
            wait_for("the API server", api, UP_TIMEOUT_S)
            self._tell("the API server answers")
            self.kubectl("apply", "-f", str(HERE / "addons" / "network-attachment-definitions.yaml"))
            wait_for("the kind NetworkAttachmentDefinition", definitions, UP_TIMEOUT_S)
            wait_for("both nodes Ready", ready, UP_TIMEOUT_S)
        except TimedOut as error:
            raise TimedOut(f"cluster {self.name}: {error}; logs are in {self.paths.logs}") from error

    def _check_alive(self) -> None:
        if self._launched is not None and self._launched.unshare.poll() is not None:
            said = self.paths.failure if self.paths.failure.exists() else self.paths.logs / "supervisor.log"
            raise ClusterError(f"cluster {self.name} did not come up: {said.read_text()[-3000:]}")

    def is_up(self) -> bool:
        """Whether it runs, whoever started it."""
        return launch.is_up(self.paths)

    def down(self) -> None:
        """End it, whoever started it; nothing to do when it is not up. Its logs stay until the next start.

        Raises TimedOut when it does not end.
        """
        launched, self._launched = self._launched, None
        launch.end(self.paths, launched)

    def node(self, number: int) -> Node:
        """One of the nodes, 1 or 2."""
        return Node(number, self.paths.agent(number))

    def disturb(self, do: str, part: str = "") -> None:
        """`freeze`, `thaw`, `kill` or `start` a part (etcd, kube-apiserver, node1 ...), or `compact` etcd.

        Raises ClusterError when that cannot be done.
        """
        control.ask(self.paths.control, do, part)

    def kubectl(
        self,
        *argv: str,
        input: str = "",  # noqa: A002 - the name that subprocess gives it
        check: bool = True,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as an administrator. Raises ClusterError when it fails and `check`."""
        command = [str(launch.program("kubectl")), "--kubeconfig", str(self.paths.kubeconfig), *argv]
        return run(command, f"kubectl {' '.join(argv)}", stdin=input, timeout=timeout, check=check)

    def kubectl_json(self, *argv: str) -> Any:
        """What kubectl says with `-o json`."""
        return json.loads(self.kubectl(*argv, "-o", "json").stdout)

    def apply(self, manifest: str) -> None:
        """`kubectl apply` of this text."""
        self.kubectl("apply", "-f", "-", input=manifest)

    def pod(self, pod: str) -> Any:
        """The Pod NAMESPACE/NAME as the API server has it."""
        namespace, name = pod.split("/")
        return self.kubectl_json("get", "pod", name, "--namespace", namespace)

    def pods(self, namespace: str, selector: str) -> list[Any]:
        """The Pods that these labels select, in the order of their nodes."""
        found = self.kubectl_json("get", "pods", "--namespace", namespace, "--selector", selector)["items"]
        return sorted(found, key=lambda pod: (pod["spec"].get("nodeName", ""), pod["metadata"]["name"]))

    def node_of(self, pod: str) -> Node:
        """The node that the Pod NAMESPACE/NAME runs on. Raises ClusterError when it is on none."""
        return self.node_in(self.pod(pod))

    def node_in(self, pod: Any) -> Node:
        """As `node_of`, of a Pod as the API server has it."""
        name = pod["spec"].get("nodeName")
        if name is None:
            raise ClusterError(f"Pod {pod['metadata']['namespace']}/{pod['metadata']['name']} is on no node yet")
        return self.node(int(name.removeprefix("node")))

    def enter(self, pod: str, *argv: str, timeout: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the node in the network namespace of Pod NAMESPACE/NAME, as a person does with nsenter."""
        return self.node_of(pod).run(*argv, pod=pod, timeout=timeout, check=check)

    def wait_ready(self, *pods: str, timeout: float = 120) -> None:
        """Wait until the Pods NAMESPACE/NAME are Ready. Raises TimedOut with their description when they are not."""
        deadline = time.monotonic() + timeout
        for pod in pods:
            namespace, name = pod.split("/")
            left = max(1.0, deadline - time.monotonic())
            arguments = (f"pod/{name}", "--namespace", namespace, f"--timeout={left:.0f}s")
            done = self.kubectl("wait", "--for=condition=Ready", *arguments, check=False, timeout=left + 30)
            if done.returncode != 0:
                story = self.kubectl("describe", "pod", name, "--namespace", namespace, check=False).stdout
                raise TimedOut(f"Pod {pod} is not Ready: {done.stderr}{story}")
