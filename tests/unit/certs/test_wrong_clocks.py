"""What is not valid yet: made by a clock that was ahead, or judged by one that is behind. Neither is known."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from certs.authority import expiry, make_authority
from certs.changes import Kind
from certs.credentials import MOST_FORMER, Credentials, Former, Lifetimes, Next
from certs.rotation import HASTE, renew, settle
from tests.unit.certs.clients import DAY, NAMES, NOW, accepts, fresh
from tests.unit.certs.test_rotation import DUE, OVERLAP, aged, announced, kinds

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


@settings(max_examples=30)
@given(
    clocks=st.lists(st.integers(-4000, 4000), min_size=2, max_size=3),
    turns=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 400)), min_size=30, max_size=30),
)
@example(clocks=[0, 4015], turns=[(0, 0), (1, 0)] * 30)
def test_however_far_clocks_are_apart_clients_trust_a_bounded_number_of_authorities(
    clocks: list[int], turns: list[tuple[int, int]]
) -> None:
    credentials: Credentials | None = None
    passed = timedelta()
    for who, minutes in turns:
        passed += timedelta(minutes=minutes)
        now = NOW + passed + clocks[who % len(clocks)] * DAY
        credentials = renew(credentials, names=NAMES, now=now, published=True).credentials
        assert len(credentials.former) <= MOST_FORMER
        assert not expiry(credentials.authority.certificate, now)


def test_a_replica_whose_clock_is_behind_takes_no_client_s_trust_away() -> None:
    """Right after the installation, whose CA is not valid yet by that clock."""
    behind, at = -2 * HOUR, NOW + timedelta(minutes=1)
    credentials = fresh()
    served, bundles = [credentials.serving.certificate], [credentials.trusted_pem()]
    for _ in range(90):
        # Clients have heard of all that was published HASTE ago, and perhaps of nothing since then.
        at += HASTE / 2
        for clock in (at + behind, at):
            credentials = renew(credentials, names=NAMES, now=clock, published=True).credentials
            served.append(credentials.serving.certificate)
        bundles.append(credentials.trusted_pem())
        for bundle in bundles[-2:]:
            assert accepts(bundle, credentials.serving.certificate, NAMES[0], at)
    assert len(set(served)) <= 3
    assert len(credentials.former) <= 1
    assert renew(credentials, names=NAMES, now=at + behind, published=True).changes == ()


def test_a_shorter_lifetime_is_renewed_as_often_and_is_valid_until_the_one_before_ends() -> None:
    shorter = Lifetimes(serving=30 * DAY)
    held, ends = fresh(), fresh().serving.certificate.not_valid_after_utc
    for days in (20, 40, 60):
        renewal = renew(held, names=NAMES, now=NOW + days * DAY, lifetimes=shorter)
        assert kinds(renewal) == [Kind.RENEWED]
        held = renewal.credentials
        assert held.serving.certificate.not_valid_after_utc == ends
    at_last = renew(held, names=NAMES, now=NOW + 350 * DAY, lifetimes=shorter).credentials
    assert at_last.serving.certificate.not_valid_after_utc == NOW + 380 * DAY


def test_an_authority_that_a_clock_ahead_made_is_replaced_in_some_minutes_with_an_overlap() -> None:
    wrong = fresh(NOW + 8 * HOUR)
    announcing = renew(wrong, names=NAMES, now=NOW)
    assert kinds(announcing) == [Kind.ANNOUNCED, Kind.RENEWED]
    assert announcing.changes[0].text.startswith(
        "the CA's certificate is not valid before 2026-03-01 19:00 UTC, so a clock is"
    )
    noted = renew(announcing.credentials, names=NAMES, now=NOW, published=True).credentials
    early = renew(noted, names=NAMES, now=NOW + HASTE - SECOND, published=True)
    assert early.credentials is noted
    renewal = renew(noted, names=NAMES, now=NOW + HASTE, published=True)
    assert kinds(renewal) == [Kind.ROTATED, Kind.RENEWED]
    assert renewal.credentials.trusted_pem() == announcing.credentials.trusted_pem()
    assert accepts(renewal.credentials.trusted_pem(), renewal.credentials.serving.certificate, NAMES[0], NOW + HASTE)


def test_an_announced_authority_that_is_not_valid_yet_is_waited_for() -> None:
    coming = replace(aged(), next=Next(make_authority(DUE + 8 * HOUR, 3650 * DAY), DUE - 2 * OVERLAP))
    assert renew(coming, names=NAMES, now=DUE, published=True).credentials is coming
    noted = renew(coming, names=NAMES, now=DUE + 8 * HOUR, published=True)
    assert kinds(noted) == [Kind.PUBLISHED]
    renewal = renew(noted.credentials, names=NAMES, now=DUE + 8 * HOUR + OVERLAP, published=True)
    assert Kind.ROTATED in kinds(renewal)
    assert renewal.credentials.authority == coming.next.authority


def test_a_time_of_publication_before_what_was_published_is_a_wrong_clock_s_and_cuts_no_overlap_short() -> None:
    coming = announced()
    behind = replace(coming, next=replace(coming.next, published=DUE - OVERLAP))
    renewal = renew(behind, names=NAMES, now=DUE, published=True)
    assert renewal.credentials == coming
    # Who has the CA in use not valid yet may be the one that is wrong.
    other = replace(fresh(DUE + 3 * HOUR), next=Next(make_authority(DUE, 3650 * DAY), DUE + HOUR))
    assert renew(other, names=NAMES, now=DUE, published=True).credentials.next == other.next


@pytest.mark.parametrize("ahead", [1200 * DAY, 8 * HOUR])
def test_but_not_when_it_comes_too_late_or_the_one_in_use_is_not_valid_either(ahead: timedelta) -> None:
    old = aged() if ahead > DAY else fresh(DUE + ahead)
    coming = replace(old, next=Next(make_authority(DUE + ahead, 3650 * DAY), DUE))
    renewal = renew(coming, names=NAMES, now=DUE, published=True)
    assert kinds(renewal)[:2] == [Kind.RETIRED, Kind.ANNOUNCED]


def test_of_too_many_former_authorities_the_oldest_go() -> None:
    many = tuple(Former(make_authority(NOW, 99 * DAY).certificate, NOW + 99 * DAY) for _ in range(MOST_FORMER + 2))
    renewal = renew(replace(fresh(), former=many), names=NAMES, now=NOW)
    assert renewal.credentials.former == many[:MOST_FORMER]
    (change,) = renewal.changes
    assert (change.kind, "of more than 8 former CAs the oldest" in change.text) == (Kind.RETIRED, True)


def test_memory_that_is_not_valid_yet_by_a_clock_that_may_be_wrong_restores_all_the_same() -> None:
    held = fresh()
    settled, change = settle(None, held, now=NOW - 2 * HOUR, fault="gone")
    assert (settled, change and change.kind) == (held, Kind.RESTORED)
    made = renew(None, names=NAMES, now=NOW - 2 * HOUR, known=held.trusted()).credentials
    assert accepts(made.trusted_pem(), held.serving.certificate, NAMES[0], NOW)
