"""Where the embedded cluster keeps things, and its fixed addresses."""

import os
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
HERE = PROJECT / "tests" / "cluster"

GATEWAY = "192.168.77.1"  # the control plane's address on the management bridge, and the nodes' default route
API_ADDRESS = "10.96.0.1"  # the `kubernetes` Service's: on the bridge itself, since no kube-proxy runs
SERVICE_CIDR = "10.96.0.0/16"
IPVLAN_GATEWAY = "172.51.0.1"
AGENT_PORT = 7700

NODES = (1, 2)


def cache() -> Path:
    """Folder of everything that is kept between runs: binaries, disks, clusters' logs."""
    return Path(os.environ.get("IPVLAN_BANDWIDTH_CACHE", Path.home() / ".cache" / "ipvlan-bandwidth"))


def management_address(node: int) -> str:
    """Address of the node's first NIC."""
    return f"192.168.77.1{node}"


def pod_subnet(node: int) -> str:
    """Subnet of the primary network on that node."""
    return f"10.244.{node}.0/24"


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one cluster. Only logs outlive it."""

    name: str

    @property
    def root(self) -> Path:
        """Folder of this cluster."""
        return cache() / "cluster" / self.name

    @property
    def lock(self) -> Path:
        """Held (flock) by the cluster's first process as long as it lives."""
        return self.root / "lock"

    @property
    def settings(self) -> Path:
        """What the supervisor is told."""
        return self.root / "settings.json"

    @property
    def failure(self) -> Path:
        """Why the supervisor gave up, when it did."""
        return self.root / "failure"

    @property
    def kubeconfig(self) -> Path:
        """An administrator's kubeconfig for use on the machine."""
        return self.root / "kubeconfig"

    @property
    def pki(self) -> Path:
        """Certificates and kubeconfigs of the control plane."""
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        """Logs of the control plane and, in node1/ and node2/, the nodes' /var/log."""
        return self.root / "logs"

    @property
    def volatile(self) -> Path:
        """Mount point of the tmpfs that exists in the cluster's own mount namespace only."""
        return self.root / "volatile"

    @property
    def control(self) -> Path:
        """Unix socket on which the supervisor is told what to do to the cluster's parts."""
        return self.root / "control.sock"

    def agent(self, node: int) -> Path:
        """Unix socket that leads to the node's agent."""
        return self.root / f"node{node}.sock"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the launcher tells the supervisor."""

    name: str
    programs: dict[str, str]
    disk: str
    modules: str
    listen_fd: int
    lifeline_fd: int | None
    multus: str | None
    extra_cni_bin: str | None
    node_memory_mib: int
