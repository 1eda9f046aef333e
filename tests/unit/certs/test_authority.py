"""The CA and its serving certificates: what clients accept, and when what is renewed."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.authority import Credentials, KeyPair, Lifetimes, issue, make_authority, renew

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAMES = ("webhook.ipvlan-bandwidth.svc", "webhook.ipvlan-bandwidth.svc.cluster.local", "webhook.ipvlan-bandwidth")
DAY = timedelta(days=1)


def accepts(bundle: bytes, serving: x509.Certificate, name: str, at: datetime) -> bool:
    verifier = (
        PolicyBuilder()
        .store(Store(x509.load_pem_x509_certificates(bundle)))
        .time(at)
        .build_server_verifier(x509.DNSName(name))
    )
    try:
        verifier.verify(serving, [])
    except VerificationError:
        return False
    return True


def fresh(now: datetime = NOW) -> Credentials:
    return renew(None, names=NAMES, now=now).credentials


@pytest.mark.parametrize("name", NAMES)
def test_a_client_that_trusts_the_bundle_accepts_the_webhook_by_each_of_its_names(name: str) -> None:
    credentials = fresh()
    assert accepts(credentials.trusted_pem(), credentials.serving.certificate, name, NOW)


def test_a_client_whose_clock_is_half_an_hour_late_accepts_it_too() -> None:
    credentials = fresh()
    late = NOW - timedelta(minutes=30)
    assert accepts(credentials.trusted_pem(), credentials.serving.certificate, NAMES[0], late)


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


def test_good_credentials_stay_as_they_are() -> None:
    credentials = fresh()
    renewal = renew(credentials, names=NAMES, now=NOW + 200 * DAY)
    assert renewal.credentials is credentials
    assert renewal.reasons == ()


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (250 * DAY, "the serving certificate expires on 2027-03-01 12:00 UTC"),
        (400 * DAY, "the serving certificate expired on 2027-03-01 12:00 UTC"),
        (-2 * DAY, "the CA's certificate is not valid before 2026-03-01 11:00 UTC"),
    ],
)
def test_credentials_are_renewed_before_they_expire_and_when_a_wrong_clock_made_them(
    after: timedelta, says: str
) -> None:
    credentials = fresh()
    renewal = renew(credentials, names=NAMES, now=NOW + after)
    assert says in renewal.reasons
    assert renewal.credentials.serving.certificate != credentials.serving.certificate


def test_renewing_the_serving_certificate_keeps_the_authority() -> None:
    credentials = fresh()
    renewed = renew(credentials, names=NAMES, now=NOW + 300 * DAY).credentials
    assert renewed.trusted_pem() == credentials.trusted_pem()


def test_a_certificate_that_lacks_a_name_is_renewed() -> None:
    renewal = renew(fresh(), names=[*NAMES, "webhook.elsewhere.svc"], now=NOW)
    assert renewal.reasons == ("the serving certificate does not name webhook.elsewhere.svc",)


def test_a_certificate_without_any_alternative_name_is_renewed() -> None:
    authority = make_authority(NOW, 100 * DAY)
    # A CA's own certificate, self-issued, is the nearest thing at hand that names no host.
    renewal = renew(Credentials(authority, authority), names=["webhook"], now=NOW)
    assert renewal.reasons == ("the serving certificate does not name webhook",)


def test_a_certificate_of_another_authority_is_renewed() -> None:
    credentials = Credentials(fresh().authority, fresh().serving)
    renewal = renew(credentials, names=NAMES, now=NOW)
    assert renewal.reasons == ("the serving certificate is not of the CA in use",)


def test_while_an_authority_is_replaced_clients_accept_what_replicas_still_serve() -> None:
    old = fresh()
    later = NOW + 2600 * DAY
    served = issue(old.authority, NAMES, later, 30 * DAY)
    renewal = renew(Credentials(old.authority, served), names=NAMES, now=later)
    assert renewal.reasons == (
        "the CA's certificate expires on 2036-02-27 12:00 UTC",
        "the serving certificate is not of the CA in use",
    )
    bundle = renewal.credentials.trusted_pem()
    assert accepts(bundle, served.certificate, NAMES[0], later)
    assert accepts(bundle, renewal.credentials.serving.certificate, NAMES[0], later)


def test_a_former_authority_that_has_expired_is_forgotten() -> None:
    old = fresh()
    renewed = renew(old, names=NAMES, now=NOW + 4000 * DAY).credentials
    assert renewed.former == ()
    assert old.authority.certificate not in x509.load_pem_x509_certificates(renewed.trusted_pem())


@settings(max_examples=30, deadline=None)
@given(
    days=st.lists(st.integers(-4000, 4000), min_size=1, max_size=4),
    authority=st.integers(1, 4000),
    serving=st.integers(1, 4000),
)
def test_whatever_the_clocks_say_renewed_credentials_serve_and_renewing_them_again_changes_nothing(
    days: list[int], authority: int, serving: int
) -> None:
    lifetimes = Lifetimes(authority=authority * DAY, serving=serving * DAY)
    credentials: Credentials | None = None
    for day in days:
        now = NOW + day * DAY
        credentials = renew(credentials, names=NAMES, now=now, lifetimes=lifetimes).credentials
        assert accepts(credentials.trusted_pem(), credentials.serving.certificate, NAMES[0], now)
        again = renew(credentials, names=NAMES, now=now, lifetimes=lifetimes)
        assert again.reasons == ()
        assert again.credentials is credentials


def test_a_pair_tells_its_pem() -> None:
    pair: KeyPair = fresh().serving
    assert pair.certificate_pem().startswith(b"-----BEGIN CERTIFICATE-----")
    assert pair.key_pem().startswith(b"-----BEGIN PRIVATE KEY-----")
