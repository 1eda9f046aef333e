"""Replicas agree on credentials through one Secret, and have API servers trust them before they are served with.

There is no leader: the first replica creates the Secret, or replaces it at the resourceVersion that it read; a second
one is refused, reads again, and takes what the first one wrote. The bundle that API servers trust is written likewise,
at the version that was read before the Secret: so no replica, however slow, ever overwrites a newer bundle with an
older one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from cryptography import x509

from certs.changes import Change, Kind
from certs.credentials import Credentials, Lifetimes
from certs.rotation import Renewal, renew, settle
from certs.secret import UnusableSecret, decode, encode

# Each lost round means that another replica won it: more than a few is not contention but a fault.
_ROUNDS: Final = 10
# Where the Secret is lost but API servers trust something, another replica may be about to restore it from memory, as
# it does within a fraction of a second: better to wait for it than to begin with a new authority.
PATIENCE_S: Final = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A Secret's `data`, and the whole object as it was read, for `SecretStore.replace`."""

    data: Mapping[str, str]
    resource: Mapping[str, Any]


class SecretStore(Protocol):
    """One Secret, with optimistic concurrency. Other failures are the implementation's exceptions, and pass through."""

    async def read(self) -> StoredSecret | None:
        """The Secret; None when there is none."""
        ...

    async def create(self, data: Mapping[str, str]) -> bool:
        """Create it; False when there is one already."""
        ...

    async def replace(self, stored: StoredSecret, data: Mapping[str, str]) -> bool:
        """Replace the data of what was read; False when it has changed since, or is gone."""
        ...


@dataclass(frozen=True, slots=True)
class Published:
    """The CA bundles that clients read, in PEM, by the webhook's name; and the version of the configuration."""

    bundles: Mapping[str, bytes]
    version: str

    def are_all(self, bundle: bytes) -> bool:
        """Whether each of them is this one."""
        return all(each == bundle for each in self.bundles.values())

    def certificates(self) -> tuple[x509.Certificate, ...]:
        """The certificates in the bundles that can be read."""
        found: list[x509.Certificate] = []
        for bundle in self.bundles.values():
            with suppress(ValueError, x509.InvalidVersion):  # somebody else's text
                found += x509.load_pem_x509_certificates(bundle)
        return tuple(dict.fromkeys(found))


class BundleStore(Protocol):
    """Where clients read which authorities to trust, with optimistic concurrency; otherwise as SecretStore."""

    async def read(self) -> Published:
        """The bundles and the version."""
        ...

    async def replace(self, published: Published, bundle: bytes) -> bool:
        """Have clients trust this bundle in PEM for each webhook that was read; False when it has changed since."""
        ...


class StoreBusyError(Exception):
    """The Secret or the bundle kept changing between our reads and our writes."""


@dataclass(frozen=True, slots=True)
class CredentialStore:
    """Where credentials are kept, the names they are for, and the time (UTC, aware) that they are checked at.

    `tell` is called for every change that this replica makes.
    """

    secret: SecretStore
    bundle: BundleStore
    names: Sequence[str]
    utcnow: Callable[[], datetime]
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    tell: Callable[[Change], None] = lambda _: None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def establish(self, held: Credentials | None = None) -> Credentials:
        """Credentials that all replicas agree on, that serve for some time, and that clients trust already.

        `held` is what this replica serves with, and restores a lost or damaged Secret from. Costs two reads when all is
        well, so it can be called again and again. Raises StoreBusyError, and what the two stores raise.
        """
        patient = held is None
        for _ in range(_ROUNDS):
            # Read first: if a bundle from a newer Secret is written after this, our write is refused.
            published = await self.bundle.read()
            credentials = await self._agree(held, published, patient=patient)
            if credentials is None:
                patient = False
                await self.sleep(PATIENCE_S)
                continue
            wanted = credentials.trusted_pem()
            if published.are_all(wanted):
                return credentials
            if await self.bundle.replace(published, wanted):
                self._tell(_repair_or_publication(credentials, held, published))
        raise StoreBusyError(
            "others kept changing the webhook's Secret or caBundle: who else writes them, and are the clocks right?"
        )

    async def _agree(self, held: Credentials | None, published: Published, *, patient: bool) -> Credentials | None:
        """The credentials in the Secret, as they should be now; None when it is better to wait for another replica."""
        for _ in range(_ROUNDS):
            stored = await self.secret.read()
            found, fault = _read(stored)
            now = self.utcnow()
            chosen, restored = settle(found, held, now=now, fault=fault)
            if chosen is None and patient and any(published.bundles.values()):
                return None
            renewal = self._renewed(chosen, published, now, fault)
            changes = renewal.changes if restored is None else (restored, *renewal.changes)
            if not changes:
                return renewal.credentials
            data = encode(renewal.credentials)
            written = await (self.secret.replace(stored, data) if stored else self.secret.create(data))
            if written:
                for change in changes:
                    self._tell(change)
                return renewal.credentials
        raise StoreBusyError("the Secret with the webhook's credentials kept changing: who else writes it?")

    def _renewed(self, chosen: Credentials | None, published: Published, now: datetime, fault: str) -> Renewal:
        return renew(
            chosen,
            names=self.names,
            now=now,
            lifetimes=self.lifetimes,
            published=chosen is not None and published.are_all(chosen.trusted_pem()),
            known=published.certificates(),
            fault=fault,
        )

    def _tell(self, change: Change) -> None:
        level = logging.WARNING if change.kind in {Kind.RESTORED, Kind.BUNDLE_REPAIRED} else logging.INFO
        logger.log(level, "credentials %s: %s", change.kind.value, change.text)
        self.tell(change)


def _read(stored: StoredSecret | None) -> tuple[Credentials | None, str]:
    """The credentials in a Secret, or why there are none."""
    if stored is None:
        return None, "there is no Secret with the webhook's credentials"
    try:
        return decode(stored.data), ""
    except UnusableSecret as error:
        return None, f"the Secret with the webhook's credentials cannot be used: {error}"
    except Exception as error:
        # Caught whatever somebody wrote there: else all replicas would fail at it, and none would write it again.
        logger.exception("defect while reading the webhook's Secret")
        return None, f"the Secret with the webhook's credentials cannot be used: {type(error).__name__}"


def _repair_or_publication(credentials: Credentials, held: Credentials | None, published: Published) -> Change:
    wanted = credentials.trusted_pem()
    if held is None or held.trusted_pem() != wanted:
        return Change(Kind.PUBLISHED, "the caBundle holds all CAs to be trusted")
    was = "missing" if not any(published.bundles.values()) else "not the webhook's"
    return Change(Kind.BUNDLE_REPAIRED, f"the caBundle was {was}, and was put back")
