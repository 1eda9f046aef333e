"""Serves with certificates from a mounted Secret, as of cert-manager, and reloads them when they change.

Their issuer also keeps the caBundle (cert-manager's `inject-ca-from`), so this needs no right in the cluster at all.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from certs.secret import SERVING_CERTIFICATE, SERVING_KEY
from webhook.listener import Listener, UnusableCertificateError

# Two small files: kubelet changes them within its sync period of a minute anyway.
POLL_S: Final = 2.0

logger = logging.getLogger(__name__)


class MountedCertificates:
    """Supplies a listener with the certificates of a folder. `report_problem` gets why it has none, or None."""

    def __init__(
        self,
        folder: Path,
        listener: Listener,
        report_problem: Callable[[str | None], None],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._folder = folder
        self._listener = listener
        self._report_problem = report_problem
        self._sleep = sleep

    async def run(self) -> None:
        """Run until cancelled. Raises OSError when the port cannot be had."""
        said: str | None = None
        while True:
            problem = await self._look()
            if problem is not None and problem != said:
                what = "still serving with the certificate before" if self._listener.listens else "no certificate yet"
                logger.warning("%s: %s", what, problem)
            said = problem
            self._report_problem(problem)
            await self._sleep(POLL_S)

    async def _look(self) -> str | None:
        """Use the certificate in the folder; returns what is wrong with it, or None. Raises OSError as `run`."""
        listened = self._listener.listens
        try:
            chain, key = (self._read(name) for name in (SERVING_CERTIFICATE, SERVING_KEY))
        except OSError as error:
            return f"cannot read {error.filename}: {error.strerror}; is the Secret with the certificate mounted there?"
        try:
            # The Secret may change between the two reads: then they do not match, but they will at the next look.
            await self._listener.use(chain, key)
        except UnusableCertificateError as error:
            return f"{self._folder} holds {error}"
        except OSError as error:  # out of descriptors or memory, as a rule: the next look tries again
            if not listened:
                raise
            return f"cannot load the certificate in {self._folder}: {error.strerror or error}"
        return None

    def _read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()
