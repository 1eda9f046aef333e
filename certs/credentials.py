"""What replicas share: an authority and a certificate of it, and which other authorities clients must trust. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from certs.authority import KeyPair, pem_of

# A rotation leaves one former authority, for as long as a certificate lasts; more come from clocks that differ.
MOST_FORMER: Final = 8


@dataclass(frozen=True, slots=True)
class Next:
    """The authority that will sign.

    `published`: the time since which clients could read the bundle with it, without a break; None: not yet.
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
    """Newest first; at most MOST_FORMER after `renew`."""

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
    """How long new certificates are valid, and how long a new authority is trusted before it signs.

    A certificate is renewed after two thirds of its lifetime, or of the lifetime configured now if that is shorter.
    """

    authority: timedelta = timedelta(days=3650)
    serving: timedelta = timedelta(days=365)
    overlap: timedelta = timedelta(days=1)
