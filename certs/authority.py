"""Makes a private CA, and serving certificates of it. Pure but for keys; `certs.rotation` decides when either is due.

ECDSA P-256 throughout: every Kubernetes release verifies it, and a handshake costs a fraction of RSA's. Extensions as
RFC 5280 has them for a CA (4.2.1.9, 4.2.1.3) and for a TLS server (4.2.1.12), with the key identifiers that Python
3.13 and OpenSSL in strict mode insist on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Clocks of API servers differ from ours: a certificate made now must be valid there already.
BACKDATED: Final = timedelta(hours=1)
# Begins the common name of every authority made here, which distinguishes them from other people's.
AUTHORITY_NAME: Final = "ipvlan-bandwidth webhook CA"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        return pem_of(self.certificate)

    def key_pem(self) -> bytes:
        """The private key as unencrypted PKCS #8 PEM."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def make_authority(now: datetime, lifetime: timedelta) -> KeyPair:
    """A new self-signed CA that may sign server certificates but no other CA; valid from BACKDATED before `now`."""
    key = ec.generate_private_key(ec.SECP256R1())
    # The serial number in the name keeps successive authorities apart: clients choose an issuer by its name.
    serial = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{AUTHORITY_NAME} {serial:x}"[:64])])
    builder = _builder(
        subject=name,
        issuer=name,
        key=key.public_key(),
        issuer_key=key.public_key(),
        validity=(now - BACKDATED, now + lifetime),
    )
    certificate = (
        builder.serial_number(serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(certificate, key)


def is_of_our_making(certificate: x509.Certificate) -> bool:
    """Whether `make_authority` made it, by its name."""
    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:  # a name that is no text, which others may write
        return False
    return any(str(name.value).startswith(AUTHORITY_NAME) for name in names)


def issue(authority: KeyPair, names: Sequence[str], now: datetime, lifetime: timedelta) -> KeyPair:
    """A new serving certificate for `names`, DNS names or IP addresses, which never outlives its authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    until = min(now + lifetime, authority.certificate.not_valid_after_utc)
    builder = _builder(
        subject=subject,
        issuer=authority.certificate.subject,
        key=key.public_key(),
        issuer_key=authority.key.public_key(),
        validity=(now - BACKDATED, until),
    )
    certificate = (
        builder.serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([general_name(name) for name in names]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return KeyPair(certificate, key)


def general_name(name: str) -> x509.GeneralName:
    """A name as certificates have it: an address in a DNS name's place is accepted by no client (RFC 9110, 4.3.5)."""
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def pem_of(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def validity_fault(certificate: x509.Certificate, now: datetime) -> str | None:
    """Why no client accepts a certificate at `now`, as the rest of a sentence; None when they do."""
    return earliness(certificate, now) or expiry(certificate, now)


def earliness(certificate: x509.Certificate, now: datetime) -> str | None:
    """That a certificate is not valid yet, so that a clock is or was wrong; as the rest of a sentence, or None."""
    begins = certificate.not_valid_before_utc
    return f"is not valid before {moment(begins)}, so a clock is wrong, or was" if now < begins else None


def expiry(certificate: x509.Certificate, now: datetime) -> str | None:
    """That a certificate has expired, as the rest of a sentence, or None."""
    ends = certificate.not_valid_after_utc
    return f"expired on {moment(ends)}" if ends <= now else None


def moment(time: datetime) -> str:
    """A time for people."""
    return f"{time:%Y-%m-%d %H:%M} UTC"


def _builder(
    *,
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    validity: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
