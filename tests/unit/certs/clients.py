"""A client of the webhook, as strict as an API server, and what the tests of this folder share."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from certs.credentials import Credentials
from certs.rotation import renew

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAMES = ("webhook.ipvlan-bandwidth.svc", "webhook.ipvlan-bandwidth.svc.cluster.local", "webhook.ipvlan-bandwidth")
DAY = timedelta(days=1)


def accepts(bundle: bytes, serving: x509.Certificate, name: str, at: datetime) -> bool:
    host = x509.IPAddress(ip_address(name)) if name[-1].isdigit() else x509.DNSName(name)
    trusted = Store(x509.load_pem_x509_certificates(bundle))
    verifier = PolicyBuilder().store(trusted).time(at).build_server_verifier(host)
    try:
        verifier.verify(serving, [])
    except VerificationError:
        return False
    return True


def fresh(now: datetime = NOW) -> Credentials:
    return renew(None, names=NAMES, now=now).credentials


def self_signed(name: x509.Name) -> x509.Certificate:
    """A certificate that we did not make."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    return builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW + DAY).sign(key, hashes.SHA256())
