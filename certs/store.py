"""Replicas agree on credentials through one Secret, and have API servers trust them before they are served with.

There is no leader: whoever comes first creates the Secret, or replaces it at the resourceVersion that it read; whoever
is refused for having come second reads again, and takes what the first one wrote.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from certs.authority import Credentials, Lifetimes, renew
from certs.secret import UnusableSecret, decode, encode

# Each lost round means that another replica won it: more than a few is not contention but a fault.
_ROUNDS: Final = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A Secret's `data` and its resourceVersion."""

    data: Mapping[str, str]
    version: str


class SecretStore(Protocol):
    """One Secret, with optimistic concurrency. Other failures are the implementation's exceptions, and pass through."""

    async def read(self) -> StoredSecret | None:
        """The Secret; None when there is none."""
        ...

    async def create(self, data: Mapping[str, str]) -> bool:
        """Create it; False when there is one already."""
        ...

    async def replace(self, data: Mapping[str, str], version: str) -> bool:
        """Replace its data; False when its version is no longer this, or it is gone."""
        ...


class StoreBusyError(Exception):
    """The Secret changed under our hands time and again."""


@dataclass(frozen=True, slots=True)
class CredentialStore:
    """Where credentials are kept, whom they are for, and the clock (UTC, aware) that they are judged by.

    `trust` makes clients trust a PEM bundle; it may be called again with the same.
    """

    secret: SecretStore
    trust: Callable[[bytes], Awaitable[None]]
    names: Sequence[str]
    clock: Callable[[], datetime]
    lifetimes: Lifetimes = field(default_factory=Lifetimes)

    async def establish(self) -> Credentials:
        """Credentials that all replicas agree on, that serve for some time, and that clients trust already.

        Cheap when all is well, so that it can be called again and again. Raises StoreBusyError, and what the Secret
        store and `trust` raise.
        """
        credentials = await self._agree()
        for _ in range(_ROUNDS):
            bundle = credentials.trusted_pem()
            await self.trust(bundle)
            # Another replica may have replaced the authority between our reading of it and our having it trusted: then
            # our bundle has overwritten the newer one.
            credentials = await self._agree()
            if credentials.trusted_pem() == bundle:
                return credentials
        raise StoreBusyError(
            "other replicas kept replacing the webhook's certificate authority: are their clocks right?"
        )

    async def _agree(self) -> Credentials:
        for _ in range(_ROUNDS):
            stored = await self.secret.read()
            renewal = renew(self._held(stored), names=self.names, now=self.clock(), lifetimes=self.lifetimes)
            if not renewal.reasons:
                return renewal.credentials
            data = encode(renewal.credentials)
            written = await (self.secret.replace(data, stored.version) if stored else self.secret.create(data))
            if written:
                logger.info("new credentials: %s", "; ".join(renewal.reasons))
                return renewal.credentials
        raise StoreBusyError("the Secret with the webhook's credentials kept changing: who else writes it?")

    @staticmethod
    def _held(stored: StoredSecret | None) -> Credentials | None:
        if stored is None:
            return None
        try:
            return decode(stored.data)
        except UnusableSecret as error:
            # Unusable for us is unusable for all replicas: making it anew loses nothing.
            logger.warning("the Secret with the webhook's credentials cannot be used, making it anew: %s", error)
            return None
