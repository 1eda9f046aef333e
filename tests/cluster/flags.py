"""Flags of etcd and kube-apiserver: what is the same wherever the tests start them, and what differs as arguments."""

from pathlib import Path

from tests.cluster.layout import SERVICE_CIDR

ETCD, PEER = "http://127.0.0.1:2379", "http://127.0.0.1:2380"


def etcd(data: Path, *, client: str = ETCD, peer: str = PEER) -> list[str]:
    """One member, which is the whole of its cluster; what it holds need not outlive the machine."""
    return [
        f"--data-dir={data}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
    ]


def kube_apiserver(pki: Path, *more: str, address: str, port: int, etcd: str = ETCD) -> list[str]:
    """With the files of `tests.cluster.pki.write_api_server` in a folder."""
    return [
        f"--etcd-servers={etcd}",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        f"--bind-address={address}",
        f"--secure-port={port}",
        *more,
    ]
