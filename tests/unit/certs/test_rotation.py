"""When what is renewed, and that each step of a rotation leaves clients able to accept what replicas serve."""

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from certs.authority import issue, make_authority
from certs.changes import Change, Kind
from certs.credentials import MOST_FORMER, Credentials, Former, Lifetimes, Next
from certs.rotation import HASTE, Renewal, next_step, renew, settle
from tests.unit.certs.clients import DAY, NAMES, NOW, accepts, fresh, self_signed

# When the CA of ten years, made at NOW, is due.
DUE = NOW + timedelta(days=2500)
OVERLAP = Lifetimes().overlap


def kinds(renewal: Renewal) -> list[Kind]:
    return [change.kind for change in renewal.changes]


def texts(renewal: Renewal) -> list[str]:
    return [change.text for change in renewal.changes]


def aged() -> Credentials:
    """Credentials whose CA is due at DUE, with a serving certificate made just then."""
    old = fresh()
    return replace(old, serving=issue(old.authority, NAMES, DUE, 300 * DAY))


def announced() -> Credentials:
    """The same with the next CA announced, and published at DUE."""
    unpublished = renew(aged(), names=NAMES, now=DUE).credentials
    return renew(unpublished, names=NAMES, now=DUE, published=True).credentials


def test_good_credentials_stay_as_they_are() -> None:
    credentials = fresh()
    renewal = renew(credentials, names=NAMES, now=NOW + 200 * DAY)
    assert renewal.credentials is credentials
    assert renewal.changes == ()


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (250 * DAY, "the serving certificate expires on 2027-03-01 12:00 UTC"),
        (400 * DAY, "the serving certificate expired on 2027-03-01 12:00 UTC"),
        (-2 * DAY, "the serving certificate is not valid before 2026-03-01 11:00 UTC, so a clock is wrong, or was"),
    ],
)
def test_credentials_are_renewed_before_they_expire_and_when_a_wrong_clock_made_them(
    after: timedelta, says: str
) -> None:
    credentials = fresh()
    renewal = renew(credentials, names=NAMES, now=NOW + after)
    assert says in texts(renewal)
    assert renewal.credentials.serving.certificate != credentials.serving.certificate


def test_renewing_the_serving_certificate_keeps_the_authority() -> None:
    credentials = fresh()
    renewed = renew(credentials, names=NAMES, now=NOW + 300 * DAY).credentials
    assert renewed.trusted_pem() == credentials.trusted_pem()


def test_a_certificate_that_lacks_a_name_is_renewed() -> None:
    renewal = renew(fresh(), names=[*NAMES, "webhook.elsewhere.svc"], now=NOW)
    assert texts(renewal) == ["the serving certificate does not name webhook.elsewhere.svc"]


def test_replicas_that_want_different_names_agree_on_all_of_them_until_the_certificate_expires() -> None:
    mine, theirs = [*NAMES, "a.example"], [*NAMES, "b.example"]
    credentials = renew(fresh(), names=mine, now=NOW).credentials
    credentials = renew(credentials, names=theirs, now=NOW).credentials
    for names in (mine, theirs, NAMES):
        assert renew(credentials, names=names, now=NOW).changes == ()
    later = NOW + 300 * DAY
    renewed = renew(credentials, names=NAMES, now=later).credentials
    assert not accepts(renewed.trusted_pem(), renewed.serving.certificate, "a.example", later)


def test_a_certificate_without_any_alternative_name_is_renewed() -> None:
    authority = make_authority(NOW, 100 * DAY)
    # A CA's own certificate, self-issued, is the nearest thing at hand that names no host.
    renewal = renew(Credentials(authority, authority), names=["webhook"], now=NOW)
    assert texts(renewal) == ["the serving certificate does not name webhook"]


def test_a_certificate_of_another_authority_is_renewed() -> None:
    credentials = Credentials(fresh().authority, fresh().serving)
    renewal = renew(credentials, names=NAMES, now=NOW)
    assert texts(renewal) == ["the serving certificate is not of the CA in use"]


def test_a_former_authority_that_has_expired_is_forgotten() -> None:
    old = fresh()
    renewed = renew(old, names=NAMES, now=NOW + 4000 * DAY).credentials
    assert renewed.former == ()
    assert old.authority.certificate not in x509.load_pem_x509_certificates(renewed.trusted_pem())


@settings(max_examples=30)
@given(
    days=st.lists(st.integers(-4000, 4000), min_size=1, max_size=4),
    authority=st.integers(1, 4000),
    serving=st.integers(1, 4000),
)
# The CA announced on the 4th is due itself on the 8th, when it follows one that has expired.
@example(days=[0, 4, 8], authority=5, serving=1)
def test_whatever_the_clocks_say_renewed_credentials_serve_and_renewing_them_again_changes_nothing(
    days: list[int], authority: int, serving: int
) -> None:
    lifetimes = Lifetimes(authority=authority * DAY, serving=serving * DAY)
    credentials: Credentials | None = None
    for day in days:
        now = NOW + day * DAY
        for wait in (timedelta(), timedelta(), HASTE, timedelta()):
            now += wait
            credentials = renew(credentials, names=NAMES, now=now, lifetimes=lifetimes, published=True).credentials
            again = renew(credentials, names=NAMES, now=now, lifetimes=lifetimes, published=True)
            # A publication is noted at the look after the announcement, and what that allows follows.
            assert again.credentials is credentials or Kind.PUBLISHED in kinds(again)
        assert accepts(credentials.trusted_pem(), credentials.serving.certificate, NAMES[0], now)
        assert renew(credentials, names=NAMES, now=now, lifetimes=lifetimes, published=True).credentials is credentials
        assert len(credentials.former) <= MOST_FORMER


def test_a_new_authority_is_trusted_first_and_signs_nothing() -> None:
    old = aged()
    renewal = renew(old, names=NAMES, now=DUE)
    assert kinds(renewal) == [Kind.ANNOUNCED]
    assert texts(renewal)[0].startswith("the CA's certificate expires on 2036-02-27 12:00 UTC: a new CA is trusted")
    new = renewal.credentials
    assert (new.authority, new.serving) == (old.authority, old.serving)
    assert new.next is not None
    later = issue(new.next.authority, NAMES, DUE, DAY).certificate
    assert accepts(new.trusted_pem(), later, NAMES[0], DUE)
    assert not accepts(old.trusted_pem(), later, NAMES[0], DUE)


def test_it_signs_once_its_bundle_has_been_published_for_the_overlap_and_not_before() -> None:
    coming = announced()
    assert coming.next is not None
    assert coming.next.published == DUE
    early = renew(coming, names=NAMES, now=DUE + OVERLAP - timedelta(seconds=1), published=True)
    assert early.credentials is coming
    late = renew(coming, names=NAMES, now=DUE + OVERLAP, published=True)
    assert kinds(late) == [Kind.ROTATED, Kind.RENEWED]
    assert late.credentials.authority == coming.next.authority
    assert late.credentials.next is None


def test_it_signs_earlier_where_the_overlap_is_longer_than_the_time_left_and_yet_before_that_ends() -> None:
    long = Lifetimes(overlap=9999 * DAY)
    coming = announced()
    tenth = NOW + 3285 * DAY
    assert not renew(coming, names=NAMES, now=tenth - DAY, lifetimes=long, published=True).credentials.former
    promoted = renew(coming, names=NAMES, now=tenth, lifetimes=long, published=True)
    assert Kind.ROTATED in kinds(promoted)


def test_it_tells_when_the_next_step_is_due() -> None:
    lifetimes = Lifetimes()
    serving_due = timedelta(days=365) * 2 / 3
    assert next_step(fresh(), lifetimes) == NOW + serving_due
    unpublished = renew(aged(), names=NAMES, now=DUE).credentials
    assert next_step(unpublished, lifetimes) == DUE + 200 * DAY, "nothing more but the serving certificate's renewal"
    assert next_step(announced(), lifetimes) == DUE + OVERLAP
    short = replace(aged(), next=Next(make_authority(DUE, DAY / 2), DUE))
    assert next_step(short, lifetimes) == DUE + DAY / 2, "it expires before it would sign"
    promoted = renew(announced(), names=NAMES, now=DUE + OVERLAP, published=True).credentials
    assert next_step(promoted, lifetimes) == DUE + OVERLAP + serving_due
    lasting = replace(promoted, serving=issue(promoted.authority, NAMES, DUE, 3650 * DAY))
    assert next_step(lasting, Lifetimes(serving=3650 * DAY)) == promoted.former[0].until


def test_it_never_signs_while_nobody_has_published_it() -> None:
    unpublished = renew(aged(), names=NAMES, now=DUE).credentials
    much_later = renew(unpublished, names=NAMES, now=DUE + 10 * OVERLAP)
    assert much_later.credentials is unpublished


def test_promotion_changes_who_signs_and_not_the_bundle() -> None:
    before = announced()
    after = renew(before, names=NAMES, now=DUE + OVERLAP, published=True).credentials
    assert after.trusted_pem() == before.trusted_pem()
    for served in (before.serving, after.serving):
        assert accepts(after.trusted_pem(), served.certificate, NAMES[0], DUE + OVERLAP)


def test_the_former_authority_is_trusted_until_all_that_it_signed_has_expired() -> None:
    before = announced()
    after = renew(before, names=NAMES, now=DUE + OVERLAP, published=True).credentials
    (former,) = after.former
    assert former.certificate == before.authority.certificate
    # The certificate that it signed at last would be valid for so long, had it been made at the promotion.
    assert former.until == DUE + OVERLAP + 365 * DAY
    assert before.serving.certificate.not_valid_after_utc < former.until
    kept = renew(after, names=NAMES, now=former.until - timedelta(seconds=1), published=True).credentials
    assert kept.former == after.former
    retired = renew(after, names=NAMES, now=former.until, published=True)
    assert Kind.RETIRED in kinds(retired)
    assert retired.credentials.former == ()


def test_what_was_served_before_a_lifetime_was_shortened_is_trusted_until_it_expires() -> None:
    before = announced()
    short = Lifetimes(serving=3 * DAY)
    (former,) = renew(before, names=NAMES, now=DUE + OVERLAP, lifetimes=short, published=True).credentials.former
    assert former.until >= before.serving.certificate.not_valid_after_utc


def test_a_bundle_that_somebody_took_away_begins_the_overlap_again() -> None:
    coming = announced()
    lost = renew(coming, names=NAMES, now=DUE + OVERLAP, published=False)
    assert kinds(lost) == [Kind.PUBLISHED]
    assert lost.credentials.next == replace(coming.next, published=None)
    back = renew(lost.credentials, names=NAMES, now=DUE + 2 * OVERLAP, published=True).credentials
    assert back.next is not None
    assert back.next.published == DUE + 2 * OVERLAP
    assert back.authority == coming.authority


def test_a_time_of_publication_in_the_future_is_a_wrong_clock_and_begins_again() -> None:
    coming = announced()
    ahead = replace(coming, next=replace(coming.next, published=DUE + 900 * DAY))
    (change,) = renew(ahead, names=NAMES, now=DUE, published=True).changes
    assert change.text == "the new CA is in the caBundle: its overlap begins"


def test_an_announced_authority_that_is_not_valid_is_given_up_for_another() -> None:
    coming = replace(aged(), next=Next(make_authority(DUE - 9 * DAY, DAY), DUE))
    renewal = renew(coming, names=NAMES, now=DUE, published=True)
    assert kinds(renewal) == [Kind.RETIRED, Kind.ANNOUNCED]
    assert renewal.credentials.next is not None
    assert renewal.credentials.next.authority != coming.next


def test_an_authority_that_has_expired_is_followed_at_once_by_the_one_announced() -> None:
    unpublished = renew(aged(), names=NAMES, now=DUE).credentials
    assert unpublished.next is not None
    renewal = renew(unpublished, names=NAMES, now=NOW + 3650 * DAY)
    assert kinds(renewal) == [Kind.ROTATED, Kind.RENEWED, Kind.RETIRED]
    assert renewal.changes[0].text == "the CA's certificate expired on 2036-02-27 12:00 UTC: the new one signs"
    assert renewal.credentials.authority == unpublished.next.authority


def test_an_authority_that_is_due_when_it_begins_to_sign_announces_the_next_at_once() -> None:
    unpublished = renew(aged(), names=NAMES, now=DUE).credentials
    renewal = renew(unpublished, names=NAMES, now=DUE + 2500 * DAY)
    assert kinds(renewal) == [Kind.ROTATED, Kind.ANNOUNCED, Kind.RENEWED, Kind.RETIRED]


def test_shorter_lifetimes_are_for_what_was_made_before_as_well() -> None:
    short = Lifetimes(authority=30 * DAY, serving=3 * DAY)
    renewal = renew(fresh(), names=NAMES, now=NOW + 21 * DAY, lifetimes=short)
    assert kinds(renewal) == [Kind.ANNOUNCED, Kind.RENEWED]


@settings(max_examples=30)
@given(authority=st.integers(100, 4000), serving=st.integers(10, 4000), overlap=st.integers(1, 500))
def test_nothing_is_due_before_the_next_step_and_something_at_it_for_as_long_as_it_goes_on(
    authority: int, serving: int, overlap: int
) -> None:
    lifetimes = Lifetimes(authority * DAY, serving * DAY, overlap * DAY)
    now = NOW
    credentials = renew(None, names=NAMES, now=now, lifetimes=lifetimes).credentials
    for _ in range(20):
        # As after each step: looked at again until all that it wrote is published.
        while (again := renew(credentials, names=NAMES, now=now, lifetimes=lifetimes, published=True)).changes:
            credentials = again.credentials
        due = next_step(credentials, lifetimes)
        assert due > now
        early = renew(credentials, names=NAMES, now=due - timedelta(seconds=1), lifetimes=lifetimes, published=True)
        assert early.credentials is credentials
        assert renew(credentials, names=NAMES, now=due, lifetimes=lifetimes, published=True).changes
        now = due


# -- a Secret that is lost or damaged ------------------------------------------------------------------------------


def test_whoever_holds_nothing_takes_what_is_found() -> None:
    found = fresh()
    assert settle(found, None, now=NOW) == (found, None)
    assert settle(None, None, now=NOW, fault="gone") == (None, None)


def test_a_lost_secret_is_restored_from_memory() -> None:
    held = fresh()
    assert settle(None, held, now=NOW, fault="it is gone") == (
        held,
        Change(Kind.RESTORED, "it is gone; restored from memory"),
    )


def test_memory_that_has_expired_restores_nothing() -> None:
    assert settle(None, fresh(), now=NOW + 366 * DAY, fault="gone") == (None, None)


def test_what_follows_from_the_credentials_held_is_taken() -> None:
    before = announced()
    after = renew(before, names=NAMES, now=DUE + OVERLAP, published=True).credentials
    assert settle(after, before, now=DUE + OVERLAP) == (after, None)


def test_credentials_of_another_authority_are_no_successor_but_trusted_as_others_may_serve_them() -> None:
    held, other = fresh(), fresh()
    settled, change = settle(other, held, now=NOW)
    assert change is not None
    assert change.kind is Kind.RESTORED
    assert settled is not None
    assert settled.authority == held.authority
    for served in (held, other):
        assert accepts(settled.trusted_pem(), served.serving.certificate, NAMES[0], NOW)
    # Whoever serves the other's follows now.
    assert settle(settled, other, now=NOW) == (settled, None)


def test_a_foreign_authority_pasted_over_ours_is_not_trusted() -> None:
    held, other = fresh(), fresh()
    settled, change = settle(replace(held, authority=other.authority), held, now=NOW)
    assert settled is held
    assert change is not None
    assert change.text == "the Secret held credentials of another authority; restored from memory"


def test_a_backup_of_before_a_rotation_does_not_undo_it() -> None:
    before = aged()
    after = renew(announced(), names=NAMES, now=DUE + OVERLAP, published=True).credentials
    held = replace(after, former=(Former(before.authority.certificate, DUE + 900 * DAY),))
    settled, change = settle(before, held, now=DUE + OVERLAP)
    assert settled is held
    assert change is not None


def test_made_anew_the_authorities_of_replicas_that_nobody_hears_of_stay_trusted() -> None:
    cut_off, expired = fresh(), make_authority(NOW - 9 * DAY, DAY)
    foreign = self_signed(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another CA")]))
    known = (cut_off.authority.certificate, expired.certificate, foreign)
    made = renew(None, names=NAMES, now=NOW, known=known, fault="it is gone")
    assert made.changes == (Change(Kind.MADE, "it is gone"),)
    assert made.credentials.former == (Former(cut_off.authority.certificate, NOW + 365 * DAY),)
    assert accepts(made.credentials.trusted_pem(), cut_off.serving.certificate, NAMES[0], NOW)
