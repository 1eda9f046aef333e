"""The CA and its serving certificates: what clients accept."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from certs.authority import KeyPair, is_of_our_making, issue, make_authority
from certs.credentials import Credentials
from certs.rotation import renew
from tests.unit.certs.clients import DAY, NAMES, NOW, accepts, fresh, self_signed


@pytest.mark.parametrize("name", NAMES)
def test_a_client_that_trusts_the_bundle_accepts_the_webhook_by_each_of_its_names(name: str) -> None:
    credentials = fresh()
    assert accepts(credentials.trusted_pem(), credentials.serving.certificate, name, NOW)


def test_a_client_whose_clock_is_half_an_hour_late_accepts_it_too() -> None:
    credentials = fresh()
    late = NOW - timedelta(minutes=30)
    assert accepts(credentials.trusted_pem(), credentials.serving.certificate, NAMES[0], late)


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_a_client_accepts_the_webhook_by_an_address_that_it_is_called_by(address: str) -> None:
    credentials = renew(None, names=[*NAMES, address], now=NOW).credentials
    for name in (NAMES[0], address):
        assert accepts(credentials.trusted_pem(), credentials.serving.certificate, name, NOW)
    assert not accepts(credentials.trusted_pem(), credentials.serving.certificate, "192.0.2.7", NOW)
    assert renew(credentials, names=[*NAMES, address], now=NOW).changes == ()


def test_an_address_that_a_certificate_has_as_a_dns_name_is_missing() -> None:
    named = x509.SubjectAlternativeName([*map(x509.DNSName, (*NAMES, "192.0.2.1"))])
    authority = make_authority(NOW, 100 * DAY)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(authority.certificate.subject)
    builder = builder.public_key(key.public_key()).serial_number(1).add_extension(named, critical=True)
    held = builder.not_valid_before(NOW).not_valid_after(NOW + 90 * DAY).sign(authority.key, hashes.SHA256())
    renewal = renew(Credentials(authority, KeyPair(held, key)), names=[*NAMES, "192.0.2.1"], now=NOW)
    assert [change.text for change in renewal.changes] == ["the serving certificate does not name 192.0.2.1"]
    bundle, serving = renewal.credentials.trusted_pem(), renewal.credentials.serving.certificate
    assert accepts(bundle, serving, "192.0.2.1", NOW)


def test_another_name_and_another_authority_are_not_accepted() -> None:
    credentials = fresh()
    assert not accepts(credentials.trusted_pem(), credentials.serving.certificate, "example.com", NOW)
    assert not accepts(fresh().trusted_pem(), credentials.serving.certificate, NAMES[0], NOW)


def test_keys_are_ecdsa_p256_and_the_authority_may_sign_servers_only() -> None:
    credentials = fresh()
    for pair in (credentials.authority, credentials.serving):
        assert isinstance(pair.key.curve, ec.SECP256R1)
    basic = credentials.authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert basic.value == x509.BasicConstraints(ca=True, path_length=0)


def test_a_serving_certificate_never_outlives_its_authority() -> None:
    authority = make_authority(NOW, 10 * DAY)
    serving = issue(authority, NAMES, NOW, 365 * DAY)
    assert serving.certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_a_pair_tells_its_pem() -> None:
    pair: KeyPair = fresh().serving
    assert pair.certificate_pem().startswith(b"-----BEGIN CERTIFICATE-----")
    assert pair.key_pem().startswith(b"-----BEGIN PRIVATE KEY-----")


def test_an_authority_of_our_making_is_told_from_others() -> None:
    assert is_of_our_making(make_authority(NOW, DAY).certificate)
    assert not is_of_our_making(self_signed(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another CA")])))
    assert not is_of_our_making(self_signed(x509.Name([])))


def test_an_authority_whose_name_is_no_text_is_not_ours() -> None:
    named = self_signed(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another CA")]))
    der = named.public_bytes(serialization.Encoding.DER).replace(b"another CA", b"another \xff\xfe")
    assert not is_of_our_making(x509.load_der_x509_certificate(der))
