"""Credentials in a Secret: what comes back, and what is said of a Secret that holds something else."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from certs.authority import Credentials, issue, make_authority, renew
from certs.secret import UnusableSecret, decode, encode

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.fixture(scope="module")
def credentials() -> Credentials:
    authority = make_authority(NOW, 100 * DAY)
    former = make_authority(NOW - DAY, 100 * DAY)
    return Credentials(authority, issue(authority, ["webhook"], NOW, 10 * DAY), (former.certificate,))


def test_what_is_encoded_decodes_to_the_same(credentials: Credentials) -> None:
    decoded = decode(encode(credentials))
    assert encode(decoded) == encode(credentials)
    assert decoded.former == credentials.former
    assert renew(decoded, names=["webhook"], now=NOW).reasons == ()


def test_the_ca_file_is_the_bundle_for_clients(credentials: Credentials) -> None:
    assert base64.b64decode(encode(credentials)["ca.crt"]) == credentials.trusted_pem()


def test_an_empty_secret_is_unusable() -> None:
    with pytest.raises(UnusableSecret, match=r"ca\.crt is missing"):
        decode({})


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("ca.crt", "%%%", "ca.crt is not base64"),
        ("ca.crt", b64(b"garbage"), "ca.crt holds no certificate"),
        ("tls.crt", "", "tls.crt is missing"),
        ("tls.key", b64(b"garbage"), "tls.key holds no private key, or an encrypted one"),
        (
            "ca.key",
            b64(
                ed25519.Ed25519PrivateKey.from_private_bytes(b"1" * 32).private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
            ),
            "ca.key is no ECDSA key",
        ),
        (
            "tls.key",
            b64(
                make_authority(NOW, DAY).key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.BestAvailableEncryption(b"secret"),
                )
            ),
            "tls.key holds no private key, or an encrypted one",
        ),
        ("tls.key", b64(make_authority(NOW, DAY).key_pem()), "tls.key is not the key of tls.crt"),
        ("ca.key", b64(make_authority(NOW, DAY).key_pem()), "ca.key is not the key of ca.crt"),
    ],
)
def test_a_damaged_secret_is_unusable_and_the_error_says_where(
    credentials: Credentials, name: str, content: str, says: str
) -> None:
    with pytest.raises(UnusableSecret) as caught:
        decode({**encode(credentials), name: content})
    assert str(caught.value) == says
