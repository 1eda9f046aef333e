"""The rotation of the CA: one authority follows another, and clients accept certificates throughout. Pure but for keys.

    announced   a new authority is in the bundle that clients trust, and signs nothing yet
    promoted    once that bundle has been published for the overlap, it signs, and the former one no longer
    retired     once nothing that the former one ever signed is valid any longer, clients trust it no longer

Each step is one write of the Secret that replicas share (`certs.store`), and any replica may take it. So a client whose
bundle is as old as the overlap accepts every replica's certificate, and a replica may serve its certificate until that
expires, however late it learns of the rest.

Clocks may be wrong. If an authority is not valid yet, a replica cannot tell whether it was made by a clock that was
ahead, so that no client accepts it, or whether the replica's own clock is behind, and all clients do. So it takes the
same steps either way, with an overlap of HASTE: if its own clock is behind, no client notices; otherwise clients accept
again after some minutes. Only an expired authority is replaced at once. Replicas whose clocks are years apart could go
on like that for ever, so MOST_FORMER bounds what clients trust; the caller bounds how often a replica writes
(`webhook.certificate_controller`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from certs.authority import (
    BACKDATED,
    earliness,
    expiry,
    general_name,
    is_of_our_making,
    issue,
    make_authority,
    moment,
    validity_fault,
)
from certs.changes import Change, Kind
from certs.credentials import MOST_FORMER, Credentials, Former, Lifetimes, Next

# By then a new authority is surely known to API servers, which watch their configuration, and to replicas, which check
# once a minute by default when they have no watch.
HASTE: Final = timedelta(minutes=2)


_DROPPED: Final = "a new CA that was announced is not valid in time: it never signs, and is trusted no longer"
_RETIRED: Final = "a former CA is trusted no longer: whatever it signed has expired"
_TOO_MANY: Final = (
    f"of more than {MOST_FORMER} former CAs the oldest are trusted no longer: clocks differ by a lifetime"
)


@dataclass(frozen=True, slots=True)
class Renewal:
    """Credentials that are good now, and the changes from those before; none if they do not differ."""

    credentials: Credentials
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class _Judged:
    """The inputs that decide a step."""

    names: Sequence[str]
    now: datetime
    lifetimes: Lifetimes
    published: bool


def renew(
    credentials: Credentials | None,
    *,
    names: Sequence[str],
    now: datetime,
    lifetimes: Lifetimes | None = None,
    published: bool = False,
    known: Sequence[x509.Certificate] = (),
    fault: str = "there are no credentials yet",
) -> Renewal:
    """Credentials for `names` (DNS names or IP addresses), valid at `now` and for some time: those given, if usable.

    `published` means that the bundle of those given is where clients read it. Where none are given, `fault` says why,
    and our authorities among `known`, the certificates that clients trusted so far, stay trusted: a replica that is cut
    off may serve a certificate of theirs. Renewing the result again changes nothing.
    """
    judged = _Judged(names, now, lifetimes or Lifetimes(), published)
    if credentials is None:
        authority = make_authority(now, judged.lifetimes.authority)
        serving = issue(authority, names, now, judged.lifetimes.serving)
        former = tuple(
            # Its latest certificate may have been signed just now.
            Former(certificate, min(certificate.not_valid_after_utc, now + judged.lifetimes.serving))
            # The bundle has the oldest first.
            for certificate in reversed(known)
            if is_of_our_making(certificate) and not expiry(certificate, now)
        )
        return Renewal(Credentials(authority, serving, former=former[:MOST_FORMER]), (Change(Kind.MADE, fault),))
    changes = []
    # An authority just promoted may be due itself, after years without a replica: so `_announce` comes afterwards.
    for step in (_mark, _promote, _announce, _certify, _retire):
        credentials, change = step(credentials, judged)
        if change is not None:
            changes.append(change)
    return Renewal(credentials, tuple(changes))


def next_step(credentials: Credentials, lifetimes: Lifetimes) -> datetime:
    """When `renew` next has something to do, if no other replica acts before and clocks are right."""
    moments = [_due_at(credentials.serving.certificate, lifetimes.serving)]
    moments += [former.until for former in credentials.former]
    if credentials.next is None:
        moments.append(_due_at(credentials.authority.certificate, lifetimes.authority))
    else:
        # One that a replica with other lifetimes made may expire before it signs, and is dropped then.
        moments.append(credentials.next.authority.certificate.not_valid_after_utc)
        if credentials.next.published is not None:
            moments.append(_in_order(credentials, credentials.next.published, lifetimes))
    return min(moments)


def settle(
    found: Credentials | None, held: Credentials | None, *, now: datetime, fault: str = ""
) -> tuple[Credentials | None, Change | None]:
    """Which credentials to go on with: those `found` in the Secret, or those `held`, which this replica serves with.

    `found` is taken when it follows from `held`, that is when it trusts the authority held. Anything else is damage
    (`fault` says which, when nothing is found), and `held` stays, as clients trust it. Where other replicas may serve
    what was found, its authority is trusted too: so two replicas that hold different credentials agree after all.
    """
    if held is None or expiry(held.serving.certificate, now):
        return found, None
    if found is None:
        return held, Change(Kind.RESTORED, f"{fault}; restored from memory")
    if held.authority.certificate in found.trusted():
        return found, None
    foreign = Change(Kind.RESTORED, "the Secret held credentials of another authority; restored from memory")
    other = found.authority.certificate
    if other in held.trusted() or not _is_issued_by(found.serving.certificate, other):
        return held, foreign
    also = Former(other, found.serving.certificate.not_valid_after_utc)
    return replace(held, former=(also, *held.former)[:MOST_FORMER]), foreign


def _mark(credentials: Credentials, judged: _Judged) -> tuple[Credentials, Change | None]:
    """Note since when clients can know the next authority."""
    coming = credentials.next
    if coming is None:
        return credentials, None
    certificate, old = coming.authority.certificate, credentials.authority.certificate
    # An authority that is not valid yet may be valid by other clocks: it is waited for while the one in use lasts.
    late = certificate.not_valid_before_utc >= old.not_valid_after_utc or earliness(old, judged.now)
    if expiry(certificate, judged.now) or (late and earliness(certificate, judged.now)):
        return replace(credentials, next=None), Change(Kind.RETIRED, _DROPPED)
    if not judged.published and coming.published is not None:
        unknown = replace(credentials, next=replace(coming, published=None))
        return unknown, Change(Kind.PUBLISHED, "the new CA is not in the caBundle any more: its overlap begins again")
    if not judged.published or earliness(certificate, judged.now):
        return credentials, None
    # An impossible time comes from a wrong clock, and would shorten or prolong the overlap. A replica that cannot tell
    # whether its own clock is the wrong one leaves the time as it is.
    begins = max(certificate.not_valid_before_utc, old.not_valid_before_utc)
    wrong = coming.published is not None and not begins <= coming.published <= judged.now
    if coming.published is None or (wrong and not earliness(old, judged.now)):
        known = replace(credentials, next=replace(coming, published=judged.now))
        return known, Change(Kind.PUBLISHED, "the new CA is in the caBundle: its overlap begins")
    return credentials, None


def _promote(credentials: Credentials, judged: _Judged) -> tuple[Credentials, Change | None]:
    """Have the next authority sign, after the overlap, or at once when the one in use has expired for everybody."""
    old, coming = credentials.authority.certificate, credentials.next
    fault = expiry(old, judged.now)
    if fault is None:
        published = None if coming is None or earliness(coming.authority.certificate, judged.now) else coming.published
        if published is None or judged.now < _ripe(credentials, published, judged):
            return credentials, None
    authority = make_authority(judged.now, judged.lifetimes.authority) if coming is None else coming.authority
    # What it signed last is served until it expires at the latest, and so may be what it signed before: names change.
    signed = max(credentials.serving.certificate.not_valid_after_utc, judged.now + judged.lifetimes.serving)
    former = (Former(old, min(old.not_valid_after_utc, signed)), *credentials.former)
    promoted = replace(credentials, authority=authority, next=None, former=former)
    why = fault or earliness(old, judged.now) or "is replaced"
    return promoted, Change(Kind.ROTATED, f"the CA's certificate {why}: the new one signs")


def _announce(credentials: Credentials, judged: _Judged) -> tuple[Credentials, Change | None]:
    """Make the authority that will follow, in good time."""
    certificate = credentials.authority.certificate
    due = earliness(certificate, judged.now) or _due(certificate, judged.now, judged.lifetimes.authority)
    if credentials.next is not None or not due:
        return credentials, None
    coming = Next(make_authority(judged.now, judged.lifetimes.authority))
    return replace(credentials, next=coming), Change(
        Kind.ANNOUNCED,
        f"the CA's certificate {due}: a new CA is trusted from now on, and signs after the overlap",
    )


def _certify(credentials: Credentials, judged: _Judged) -> tuple[Credentials, Change | None]:
    """Ensure a serving certificate of the authority in use, for all names."""
    fault = _serving_fault(credentials, judged)
    if fault is None:
        return credentials, None
    names, held = judged.names, credentials.serving.certificate
    if _is_issued_by(held, credentials.authority.certificate) and not _expired_or_due(credentials, judged):
        # Only a name is missing. Names that another replica wants stay, or the two would renew in turn for ever.
        names = (*names, *sorted(_names(held) - set(names)))
    # Never a shorter one than the one held: if our clock is behind by a lifetime, clients would take it for expired.
    lifetime = max(judged.lifetimes.serving, held.not_valid_after_utc - judged.now)
    serving = issue(credentials.authority, names, judged.now, lifetime)
    return replace(credentials, serving=serving), Change(Kind.RENEWED, f"the serving certificate {fault}")


def _retire(credentials: Credentials, judged: _Judged) -> tuple[Credentials, Change | None]:
    """Drop former authorities whose certificates have all expired, and the oldest beyond MOST_FORMER.

    Stopping promotions instead would leave replicas with an expired authority until somebody intervenes.
    """
    kept = tuple(
        former
        for former in credentials.former
        if judged.now < former.until and judged.now < former.certificate.not_valid_after_utc
    )
    if kept == credentials.former and len(kept) <= MOST_FORMER:
        return credentials, None
    text = _RETIRED if len(kept) <= MOST_FORMER else _TOO_MANY
    return replace(credentials, former=kept[:MOST_FORMER]), Change(Kind.RETIRED, text)


def _serving_fault(credentials: Credentials, judged: _Judged) -> str | None:
    """Why the serving certificate cannot be used any longer, as the rest of a sentence; None when it can."""
    certificate = credentials.serving.certificate
    if not _is_issued_by(certificate, credentials.authority.certificate):
        return "is not of the CA in use"
    if missing := sorted(set(judged.names) - _names(certificate)):
        return f"does not name {', '.join(missing)}"
    return _expired_or_due(credentials, judged)


def _expired_or_due(credentials: Credentials, judged: _Judged) -> str | None:
    certificate = credentials.serving.certificate
    return validity_fault(certificate, judged.now) or _due(certificate, judged.now, judged.lifetimes.serving)


def _names(certificate: x509.Certificate) -> set[str]:
    """The names that it is for, as far as clients accept it by them: DNS names, and IP addresses."""
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):  # there is none, or none that can be read
        return set()
    addresses = map(str, alternatives.get_values_for_type(x509.IPAddress))
    return {
        name
        for name in (*alternatives.get_values_for_type(x509.DNSName), *addresses)
        if general_name(name) in alternatives
    }


def _is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _ripe(credentials: Credentials, published: datetime, judged: _Judged) -> datetime:
    """When the next authority signs: after the overlap, or HASTE if the one in use is not valid yet by our clock."""
    full = _in_order(credentials, published, judged.lifetimes)
    return min(full, published + HASTE) if earliness(credentials.authority.certificate, judged.now) else full


def _in_order(credentials: Credentials, published: datetime, lifetimes: Lifetimes) -> datetime:
    """When the next authority signs: after the overlap, which is cut short when a tenth of the current one is left.

    So little is left only after a change of lifetimes, or a long time without an API server.
    """
    made, ends = _validity(credentials.authority.certificate)
    return min(published + lifetimes.overlap, max(published, ends - (ends - made) / 10))


def _due(certificate: x509.Certificate, now: datetime, lifetime: timedelta) -> str | None:
    """Why it is time to renew a certificate, as the rest of a sentence; None when it is not."""
    if now < _due_at(certificate, lifetime):
        return None
    return f"expires on {moment(certificate.not_valid_after_utc)}"


def _due_at(certificate: x509.Certificate, lifetime: timedelta) -> datetime:
    made, ends = _validity(certificate)
    return made + min(ends - made, lifetime) * 2 / 3


def _validity(certificate: x509.Certificate) -> tuple[datetime, datetime]:
    """When it was made, and when it expires."""
    return certificate.not_valid_before_utc + BACKDATED, certificate.not_valid_after_utc
