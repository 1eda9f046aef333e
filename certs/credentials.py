"""What replicas share: an authority and a certificate of it, and which other authorities clients must trust. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from certs.authority import KeyPair, pem_of

# A rotation leaves one, for as long as a certificate lasts: more are the work of clocks that differ.
MOST_FORMER: Final = 8


@dataclass(frozen=True, slots=True)
class Next:
    """The authority that will sign.

    `published` is since when the bundle with it has been where clients read it, without a break; None: not yet.
    """

    authority: KeyPair
    published: datetime | None = None


@dataclass(frozen=True, slots=True)
class Former:
    """An authority that signs no longer, and `until` when a replica may serve what it signed."""

    certificate: x509.Certificate
    until: datetime


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the webhook serves with, and what its clients must trust."""

    authority: KeyPair
    serving: KeyPair
    next: Next | None = None
    former: tuple[Former, ...] = ()
    """Newest first, and MOST_FORMER at most once they are renewed."""

    def trusted(self) -> tuple[x509.Certificate, ...]:
        """The authorities that clients must trust: the one in use, the next one, the former ones."""
        coming = () if self.next is None else (self.next.authority.certificate,)
        return (self.authority.certificate, *coming, *(former.certificate for former in self.former))

    def trusted_pem(self) -> bytes:
        """The same as a CA bundle in PEM, oldest first: which of them signs makes no difference to it."""
        by_age = sorted(self.trusted(), key=lambda trusted: (trusted.not_valid_before_utc, trusted.serial_number))
        return b"".join(pem_of(certificate) for certificate in by_age)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """For how long what is made is valid, and how long a new authority is trusted before it signs.

    A certificate is renewed when two thirds of its lifetime are over; where it was made for longer than what is asked
    for now, of the latter.
    """

    authority: timedelta = timedelta(days=3650)
    serving: timedelta = timedelta(days=365)
    overlap: timedelta = timedelta(days=1)
