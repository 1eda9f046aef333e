"""Makes a private CA and a serving certificate of it, and tells when either is due for renewal. Pure but for keys.

ECDSA P-256 throughout: every Kubernetes release verifies it, and a handshake costs a fraction of RSA's. Extensions as
RFC 5280 has them for a CA (4.2.1.9, 4.2.1.3) and for a TLS server (4.2.1.12), with the key identifiers that Python
3.13 and OpenSSL in strict mode insist on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Clocks of API servers differ from ours: a certificate made now must be valid there already.
BACKDATED: Final = timedelta(hours=1)


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


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the webhook serves with, and what its clients must trust.

    `former` are authorities that no longer sign, but that a replica which has not seen the newest yet may serve with.
    """

    authority: KeyPair
    serving: KeyPair
    former: tuple[x509.Certificate, ...] = ()

    def trusted_pem(self) -> bytes:
        """The CA bundle for clients as PEM, the authority in use first."""
        return b"".join(pem_of(certificate) for certificate in (self.authority.certificate, *self.former))


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """For how long what is made is valid. It is renewed when a third of that is left."""

    authority: timedelta = timedelta(days=3650)
    serving: timedelta = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Renewal:
    """Credentials that are good now, and why they differ from those before; no reasons: they do not differ."""

    credentials: Credentials
    reasons: tuple[str, ...] = ()


def renew(
    credentials: Credentials | None, *, names: Sequence[str], now: datetime, lifetimes: Lifetimes | None = None
) -> Renewal:
    """Credentials for the DNS `names` that are valid at `now` and for some time: those given, as far as they serve.

    Renewing again what this returned, at the same `now`, changes nothing.
    """
    lifetimes = lifetimes or Lifetimes()
    if credentials is None:
        authority = make_authority(now, lifetimes.authority)
        return Renewal(
            Credentials(authority, issue(authority, names, now, lifetimes.serving)), ("there are no credentials yet",)
        )
    reasons = []
    authority, former = credentials.authority, credentials.former
    if due := _due(authority.certificate, now):
        reasons.append(f"the CA's certificate {due}")
        former = (authority.certificate, *former)
        authority = make_authority(now, lifetimes.authority)
    former = tuple(certificate for certificate in former if certificate.not_valid_after_utc > now)
    serving = credentials.serving
    if fault := _fault(serving.certificate, authority.certificate, names, now):
        reasons.append(f"the serving certificate {fault}")
        serving = issue(authority, names, now, lifetimes.serving)
    # That a former authority has expired is no reason of its own: it goes when something else changes.
    return Renewal(Credentials(authority, serving, former), tuple(reasons)) if reasons else Renewal(credentials)


def make_authority(now: datetime, lifetime: timedelta) -> KeyPair:
    """A new self-signed CA that may sign servers and nothing below; valid from BACKDATED before `now`."""
    key = ec.generate_private_key(ec.SECP256R1())
    # The serial number in the name keeps successive authorities apart: clients choose an issuer by its name.
    serial = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ipvlan-bandwidth webhook CA {serial:x}"[:64])])
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


def issue(authority: KeyPair, names: Sequence[str], now: datetime, lifetime: timedelta) -> KeyPair:
    """A new serving certificate for the DNS `names`, which never outlives its authority."""
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
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return KeyPair(certificate, key)


def pem_of(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _fault(certificate: x509.Certificate, authority: x509.Certificate, names: Sequence[str], now: datetime) -> str:
    """Why the serving certificate cannot be used any longer, as the rest of a sentence; empty when it can."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return "is not of the CA in use"
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        held = set(alternatives.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        held = set()
    if missing := sorted(set(names) - held):
        return f"does not name {', '.join(missing)}"
    return _due(certificate, now)


def _due(certificate: x509.Certificate, now: datetime) -> str:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begins:
        return f"is not valid before {begins:%Y-%m-%d %H:%M} UTC"
    if ends <= now:
        return f"expired on {ends:%Y-%m-%d %H:%M} UTC"
    if ends - now < (ends - begins) / 3:
        return f"expires on {ends:%Y-%m-%d %H:%M} UTC"
    return ""


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
