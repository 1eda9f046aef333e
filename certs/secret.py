"""Credentials as the `data` of a Kubernetes Secret, and back. Pure.

The keys are those of `kubernetes.io/tls` Secrets (`tls.crt`, `tls.key`) and the customary `ca.crt`, `ca.key`. In
`ca.crt` the authority in use comes first, former ones that may still be served with after it: as it stands, the file
is the CA bundle for clients.
"""

import base64
from collections.abc import Mapping
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certs.authority import Credentials, KeyPair

CA_CERTIFICATE: Final = "ca.crt"
CA_KEY: Final = "ca.key"
SERVING_CERTIFICATE: Final = "tls.crt"
SERVING_KEY: Final = "tls.key"


class UnusableSecret(ValueError):  # noqa: N818 - says what it is; like the rest of the project's refusals
    """A Secret whose contents are no credentials; its text says what is wrong, and holds nothing secret."""


def encode(credentials: Credentials) -> dict[str, str]:
    """The `data` of a Secret that holds these credentials."""
    files = {
        CA_CERTIFICATE: credentials.trusted_pem(),
        CA_KEY: credentials.authority.key_pem(),
        SERVING_CERTIFICATE: credentials.serving.certificate_pem(),
        SERVING_KEY: credentials.serving.key_pem(),
    }
    return {name: base64.b64encode(content).decode("ascii") for name, content in files.items()}


def decode(data: Mapping[str, str]) -> Credentials:
    """The credentials in a Secret's `data`; UnusableSecret when they are missing, damaged or do not fit together."""
    first, *former = _certificates(data, CA_CERTIFICATE)
    serving, *_ = _certificates(data, SERVING_CERTIFICATE)
    return Credentials(
        authority=_pair(first, CA_CERTIFICATE, _key(data, CA_KEY), CA_KEY),
        serving=_pair(serving, SERVING_CERTIFICATE, _key(data, SERVING_KEY), SERVING_KEY),
        former=tuple(former),
    )


def _pair(
    certificate: x509.Certificate, certificate_name: str, key: ec.EllipticCurvePrivateKey, key_name: str
) -> KeyPair:
    if certificate.public_key() != key.public_key():
        raise UnusableSecret(f"{key_name} is not the key of {certificate_name}")
    return KeyPair(certificate, key)


def _certificates(data: Mapping[str, str], name: str) -> list[x509.Certificate]:
    content = _file(data, name)
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise UnusableSecret(f"{name} holds no certificate") from error


def _key(data: Mapping[str, str], name: str) -> ec.EllipticCurvePrivateKey:
    content = _file(data, name)
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:  # a TypeError is an encrypted key
        raise UnusableSecret(f"{name} holds no private key, or an encrypted one") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UnusableSecret(f"{name} is no ECDSA key")
    return key


def _file(data: Mapping[str, str], name: str) -> bytes:
    if not (text := data.get(name)):
        raise UnusableSecret(f"{name} is missing")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UnusableSecret(f"{name} is not base64") from error
