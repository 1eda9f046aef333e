"""Credentials as the `data` of a Kubernetes Secret, and back. Pure.

The keys are those of `kubernetes.io/tls` Secrets (`tls.crt`, `tls.key`) and the customary `ca.crt`, `ca.key`. In
`ca.crt` the authority in use comes first, then the next one where there is `next.key`, then former ones: as it stands,
the file is a CA bundle for clients. `rotation.json` holds the times that are in no certificate; without it, as in a
Secret that was written before there was rotation, former authorities are trusted until they expire.
"""

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certs.authority import KeyPair, pem_of
from certs.credentials import Credentials, Former, Next

CA_CERTIFICATE: Final = "ca.crt"
CA_KEY: Final = "ca.key"
NEXT_KEY: Final = "next.key"
SERVING_CERTIFICATE: Final = "tls.crt"
SERVING_KEY: Final = "tls.key"
ROTATION: Final = "rotation.json"
# TLS serves with no smaller key; ours have this size.
SMALLEST_KEY_BITS: Final = 256


class UnusableSecret(ValueError):  # noqa: N818 - says what it is; like the rest of the project's refusals
    """A Secret whose contents are no credentials; its text says what is wrong, and holds nothing secret."""


def encode(credentials: Credentials) -> dict[str, str]:
    """The `data` of a Secret that holds these credentials."""
    published = credentials.next and credentials.next.published
    times = {
        "published": published.isoformat() if published else None,
        "former": [former.until.isoformat() for former in credentials.former],
    }
    files = {
        CA_CERTIFICATE: b"".join(pem_of(certificate) for certificate in credentials.trusted()),
        CA_KEY: credentials.authority.key_pem(),
        SERVING_CERTIFICATE: credentials.serving.certificate_pem(),
        SERVING_KEY: credentials.serving.key_pem(),
        ROTATION: json.dumps(times).encode(),
    }
    if credentials.next is not None:
        files[NEXT_KEY] = credentials.next.authority.key_pem()
    return {name: base64.b64encode(content).decode("ascii") for name, content in files.items()}


def decode(data: Mapping[str, str]) -> Credentials:
    """The credentials in a Secret's `data`; UnusableSecret when they are missing, damaged or do not fit together."""
    first, *others = _certificates(data, CA_CERTIFICATE)
    serving, *_ = _certificates(data, SERVING_CERTIFICATE)
    published, until = _times(data)
    coming = None
    if NEXT_KEY in data:
        if not others:
            raise UnusableSecret(f"{CA_CERTIFICATE} lacks the certificate of {NEXT_KEY}")
        coming = Next(_pair(others.pop(0), CA_CERTIFICATE, _key(data, NEXT_KEY), NEXT_KEY), published)
    if until is None:
        until = [certificate.not_valid_after_utc for certificate in others]
    if len(until) != len(others):
        raise UnusableSecret(f"{CA_CERTIFICATE} and {ROTATION} differ in how many former authorities there are")
    return Credentials(
        authority=_pair(first, CA_CERTIFICATE, _key(data, CA_KEY), CA_KEY),
        serving=_pair(serving, SERVING_CERTIFICATE, _key(data, SERVING_KEY), SERVING_KEY),
        next=coming,
        former=tuple(Former(certificate, end) for certificate, end in zip(others, until, strict=True)),
    )


def _pair(
    certificate: x509.Certificate, certificate_name: str, key: ec.EllipticCurvePrivateKey, key_name: str
) -> KeyPair:
    try:
        fits = certificate.public_key() == key.public_key()
        _ = certificate.subject, certificate.issuer  # parsed on access, and may be damaged
    except (ValueError, UnsupportedAlgorithm):
        fits = False
    if not fits:
        raise UnusableSecret(f"{key_name} is not the key of {certificate_name}")
    return KeyPair(certificate, key)


def _certificates(data: Mapping[str, str], name: str) -> list[x509.Certificate]:
    content = _file(data, name)
    try:
        return x509.load_pem_x509_certificates(content)
    except (ValueError, x509.InvalidVersion) as error:
        raise UnusableSecret(f"{name} holds no certificate") from error


def _key(data: Mapping[str, str], name: str) -> ec.EllipticCurvePrivateKey:
    content = _file(data, name)
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # a TypeError is an encrypted key
        raise UnusableSecret(f"{name} holds no private key, or an encrypted one") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.key_size < SMALLEST_KEY_BITS:
        raise UnusableSecret(f"{name} is no ECDSA key of {SMALLEST_KEY_BITS} bits or more")
    return key


def _times(data: Mapping[str, str]) -> tuple[datetime | None, list[datetime] | None]:
    """When the bundle with the next authority was published, and until when each former one is trusted."""
    if ROTATION not in data:
        return None, None
    try:
        times = json.loads(_file(data, ROTATION))
        published = times["published"]
        return None if published is None else _time(published), [_time(end) for end in times["former"]]
    except UnusableSecret:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnusableSecret(f"{ROTATION} does not hold the times of a rotation") from error


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without a zone")
    return time


def _file(data: Mapping[str, str], name: str) -> bytes:
    if not (text := data.get(name)):
        raise UnusableSecret(f"{name} is missing")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UnusableSecret(f"{name} is not base64") from error
