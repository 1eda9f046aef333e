"""Keys, certificates and kubeconfigs of a cluster that lives for hours."""

import base64
import datetime as dt
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.cluster import layout

LIFETIME = dt.timedelta(days=30)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclass(frozen=True, slots=True)
class Authority:
    """The cluster's certificate authority."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def create(cls) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "embedded-cluster")])
        certificate = (
            _builder(name, name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, user: str, group: str | None = None, addresses: Sequence[str] = ()) -> tuple[bytes, bytes]:
        """Key and certificate, in PEM, for a user (and group) of Kubernetes or for a server at these addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
        if group is not None:
            subject.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        builder = _builder(x509.Name(subject), self.certificate.subject, key.public_key())
        if addresses:
            names = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        return _pem(key), certificate.public_bytes(serialization.Encoding.PEM)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
    )


def kubeconfig(server: str, authority: Authority, user: str, group: str | None = None) -> str:
    """Kubeconfig (JSON, which is YAML) with everything inline."""
    key, certificate = authority.issue(user, group)

    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    cluster = {"server": server, "certificate-authority-data": encoded(authority.pem)}
    credentials = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "embedded", "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": "embedded", "context": {"cluster": "embedded", "user": user}}],
            "current-context": "embedded",
        },
        indent=1,
    )


def write_pair(folder: Path, name: str, pair: tuple[bytes, bytes]) -> None:
    """A key and its certificate, as NAME.key and NAME.crt."""
    for suffix, content in zip(("key", "crt"), pair, strict=True):
        (folder / f"{name}.{suffix}").write_bytes(content)


def write_api_server(folder: Path, authority: Authority, addresses: Sequence[str]) -> None:
    """What a kube-apiserver at these addresses reads: the CA, its certificate, and the keys of ServiceAccounts."""
    (folder / "ca.crt").write_bytes(authority.pem)
    write_pair(folder, "apiserver", authority.issue("kube-apiserver", addresses=addresses))
    accounts = ec.generate_private_key(ec.SECP256R1())
    (folder / "sa.key").write_bytes(_pem(accounts))
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / "sa.pub").write_bytes(accounts.public_key().public_bytes(encoding, form))


def write(folder: Path, outside_server: str, outside_kubeconfig: Path) -> None:
    """Write all that control plane, nodes, Multus and a person on the machine need to trust each other."""
    folder.mkdir(mode=0o700)
    authority = Authority.create()
    write_api_server(folder, authority, ("127.0.0.1", layout.GATEWAY, layout.API_ADDRESS))
    write_pair(folder, "kubelet-client", authority.issue("kube-apiserver-kubelet-client", "system:masters"))
    server = f"https://{layout.GATEWAY}:443"
    users: dict[str, tuple[str, str | None]] = {
        "controller-manager": ("system:kube-controller-manager", None),
        "scheduler": ("system:kube-scheduler", None),
        "multus": ("multus", None),
    }
    users |= {f"node{n}": (f"system:node:node{n}", "system:nodes") for n in layout.NODES}
    for name, (user, group) in users.items():
        (folder / f"{name}.conf").write_text(kubeconfig(server, authority, user, group))
    outside_kubeconfig.write_text(kubeconfig(outside_server, authority, "admin", "system:masters"))
    outside_kubeconfig.chmod(0o600)
