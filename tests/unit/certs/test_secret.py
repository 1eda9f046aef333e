"""Credentials in a Secret: what comes back, and what is said of a Secret that holds something else."""

import base64
import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import example, given, settings
from hypothesis import strategies as st

from certs.authority import KeyPair, issue, make_authority
from certs.credentials import Credentials, Former, Lifetimes, Next
from certs.rotation import next_step, renew
from certs.secret import UnusableSecret, decode, encode
from certs.store import Published
from tests.unit.certs.clients import accepts

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def pem(what: str, der: bytes) -> bytes:
    return f"-----BEGIN {what}-----\n{b64(der)}\n-----END {what}-----\n".encode()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


MADE = renew(None, names=["webhook"], now=NOW).credentials


@pytest.fixture(scope="module")
def credentials() -> Credentials:
    authority = make_authority(NOW, 100 * DAY)
    former = make_authority(NOW - DAY, 100 * DAY)
    coming = Next(make_authority(NOW, 200 * DAY), NOW)
    return Credentials(
        authority, issue(authority, ["webhook"], NOW, 10 * DAY), coming, (Former(former.certificate, NOW + DAY),)
    )


def test_what_is_encoded_decodes_to_the_same(credentials: Credentials) -> None:
    decoded = decode(encode(credentials))
    assert encode(decoded) == encode(credentials)
    assert decoded.former == credentials.former
    assert decoded.next is not None
    assert decoded.next.published == NOW
    assert renew(decoded, names=["webhook"], now=NOW, published=True).changes == ()


def test_the_ca_file_is_the_bundle_for_clients(credentials: Credentials) -> None:
    file = x509.load_pem_x509_certificates(base64.b64decode(encode(credentials)["ca.crt"]))
    assert set(file) == set(x509.load_pem_x509_certificates(credentials.trusted_pem()))
    assert file[0] == credentials.authority.certificate


def test_a_secret_from_before_there_was_rotation_is_read_and_trusts_its_former_authorities_until_they_expire(
    credentials: Credentials,
) -> None:
    before = encode(replace(credentials, next=None))
    del before["rotation.json"]
    (former,) = decode(before).former
    assert former == Former(credentials.former[0].certificate, NOW + 99 * DAY)


def test_an_authority_that_is_not_published_yet_comes_back_so(credentials: Credentials) -> None:
    coming = replace(credentials, next=Next(make_authority(NOW, DAY)))
    decoded = decode(encode(coming)).next
    assert decoded is not None
    assert decoded.published is None


def test_the_next_key_needs_its_certificate(credentials: Credentials) -> None:
    alone = encode(replace(credentials, former=(), next=None))
    with pytest.raises(UnusableSecret, match=r"ca\.crt lacks the certificate of next\.key"):
        decode({**alone, "next.key": alone["ca.key"]})


@settings(max_examples=500)
@given(st.data())
def test_whatever_is_written_over_a_file_is_told_as_damage_or_clients_accept_what_comes_of_it(
    credentials: Credentials, data: st.DataObject
) -> None:
    good = encode(credentials)
    name = data.draw(st.sampled_from(sorted(good)))
    content = bytearray(base64.b64decode(good[name]))
    at = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(at, len(content)))
    content[at:end] = data.draw(st.binary(max_size=20))
    serves_in_the_end({**good, name: b64(bytes(content))})


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.just([]),
    st.just({}),
    st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    st.sampled_from(["9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+23:00", "2026-03-01T12:00:00"]),
)


@settings(max_examples=200)
@given(published=VALUES, former=st.one_of(VALUES, st.lists(VALUES, max_size=2)))
@example(published="", former=[NOW.isoformat()])
@example(published=0, former=[NOW.isoformat()])
@example(published=[], former=[NOW.isoformat()])
def test_whatever_the_times_of_a_rotation_are_they_are_damage_or_clients_accept_what_comes_of_it(
    credentials: Credentials, published: object, former: object
) -> None:
    times = json.dumps({"published": published, "former": former}).encode()
    serves_in_the_end({**encode(credentials), "rotation.json": b64(times)})


def serves_in_the_end(files: dict[str, str]) -> None:
    """As replicas go on with it, whether the bundle was published or not, unless it is damage."""
    for published in (True, False):
        with suppress(UnusableSecret):
            found = decode(files)
            for _ in range(3):
                found = renew(found, names=["webhook"], now=NOW, published=published).credentials
            next_step(found, Lifetimes())
            encode(found)
            if accepts_its_own(found.authority):
                assert accepts(found.trusted_pem(), found.serving.certificate, "webhook", NOW)


def accepts_its_own(authority: KeyPair) -> bool:
    """Whether what is left of an authority is one that may sign: its signature is nobody's to verify."""
    return accepts(authority.certificate_pem(), issue(authority, ["webhook"], NOW, DAY).certificate, "webhook", NOW)


def test_keys_of_a_kind_that_nobody_knows_are_damage_too() -> None:
    p256, unknown = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d030177")
    good = encode(MADE)
    certificate = MADE.authority.certificate.public_bytes(serialization.Encoding.DER).replace(p256, unknown)
    with pytest.raises(UnusableSecret, match=r"ca\.key is not the key of ca\.crt"):
        decode({**good, "ca.crt": b64(pem("CERTIFICATE", certificate))})
    key = MADE.authority.key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).replace(p256, unknown)
    with pytest.raises(UnusableSecret, match=r"ca\.key holds no private key, or an encrypted one"):
        decode({**good, "ca.key": b64(pem("PRIVATE KEY", key))})


def test_a_version_that_certificates_do_not_have_is_damage_too() -> None:
    third, eighth = bytes.fromhex("a003020102"), bytes.fromhex("a003020107")
    certificate = MADE.serving.certificate.public_bytes(serialization.Encoding.DER).replace(third, eighth)
    damaged = pem("CERTIFICATE", certificate)
    with pytest.raises(UnusableSecret, match=r"tls\.crt holds no certificate"):
        decode({**encode(MADE), "tls.crt": b64(damaged)})
    good = MADE.authority
    published = Published({"a": damaged, "b": good.certificate_pem()}, "1")
    assert published.certificates() == (good.certificate,)


def test_a_key_that_is_too_small_for_tls_is_damage_too() -> None:
    small = ec.generate_private_key(ec.SECP192R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(UnusableSecret, match=r"tls\.key is no ECDSA key of 256 bits or more"):
        decode({**encode(MADE), "tls.key": b64(small)})


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
            "ca.key is no ECDSA key of 256 bits or more",
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
        ("rotation.json", "", "rotation.json is missing"),
        ("rotation.json", b64(b"{"), "rotation.json does not hold the times of a rotation"),
        (
            "rotation.json",
            b64(b'{"published": null, "former": ["2026-03-01T12:00:00"]}'),
            "rotation.json does not hold the times of a rotation",
        ),
        (
            "rotation.json",
            b64(b'{"published": null, "former": []}'),
            "ca.crt and rotation.json differ in how many former authorities there are",
        ),
        ("next.key", b64(make_authority(NOW, DAY).key_pem()), "next.key is not the key of ca.crt"),
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
