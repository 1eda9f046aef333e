"""Reconciles our own certificates: agreed on with other replicas, trusted by API servers, watched, repaired, renewed.

The Secret and the MutatingWebhookConfiguration are both watched: a change by somebody else is repaired within a second
while the watch is connected. Both are also checked every `recheck_s`, which bounds the time to repair when it is not.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from certs.changes import Change, Kind
from certs.credentials import Credentials
from certs.rotation import next_step
from certs.store import CredentialStore, StoreBusyError
from webhook.certificate_events import CertificateEvents
from webhook.certificates import CONFIGURATIONS, KubeBundle, KubeSecret, secrets_path
from webhook.common.backoff import delay_s
from webhook.common.contract import NAMESPACE
from webhook.common.kubeapi import ApiError, KubeApi
from webhook.common.reflector import Reflector
from webhook.common.token_bucket import TokenBucket
from webhook.listener import Listener, UnusableCertificateError
from webhook.metrics import Metrics
from webhook.settings import CONFIGURATION, DEPLOYMENT, SECRET, Settings

_FIRST_RETRY_S: Final = 0.5
_LONGEST_RETRY_S: Final = 15.0
# A write of ours and another replica's write to the other object lead to one check of both.
_SETTLE_S: Final = 0.05
# If somebody keeps undoing repairs, or a replica with another clock or other lifetimes does, repairs must not take all
# that the API server can bear. A rotation is a handful of changes.
_CHANGES_AT_ONCE: Final = 10
_FORGIVEN_AFTER_S: Final = 60.0
_PAUSE_S: Final = 5.0
# First after some 8 s, as an installation may still be being applied; then every hour, as long as an event lasts.
_FAILURES_TOLD: Final = 5
_FAILURES_AGAIN: Final = 240

logger = logging.getLogger(__name__)


class CertificateController:
    """Supplies a listener with certificates that API servers trust. `report_problem` gets why it has none, or None."""

    def __init__(
        self,
        settings: Settings,
        api: KubeApi,
        listener: Listener,
        metrics: Metrics,
        report_problem: Callable[[str | None], None],
        *,
        utcnow: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._metrics = metrics
        self._report_problem = report_problem
        self._utcnow = utcnow
        self._sleep = sleep
        self._changed = asyncio.Event()
        self._changes: list[Change] = []
        self._bucket = TokenBucket(_CHANGES_AT_ONCE, _FORGIVEN_AFTER_S, monotonic)
        self._events = CertificateEvents(api, NAMESPACE, DEPLOYMENT, utcnow=utcnow)
        self._store = CredentialStore(
            secret=KubeSecret(api, NAMESPACE, SECRET),
            bundle=KubeBundle(api, CONFIGURATION),
            names=settings.names,
            utcnow=utcnow,
            lifetimes=settings.lifetimes,
            tell=self._changes.append,
            sleep=sleep,
        )
        self._watches = tuple(
            Reflector(
                api,
                path,
                # With this selector, RBAC can restrict a right to one object's name.
                params={"fieldSelector": f"metadata.name={name}"},
                on_sync=lambda _: self._changed.set(),
                on_event=self._event,
                spread_s=0,
            )
            for path, name in ((secrets_path(NAMESPACE), SECRET), (CONFIGURATIONS, CONFIGURATION))
        )

    async def run(self) -> None:
        """Run until cancelled. Raises OSError when the port cannot be had."""
        async with asyncio.TaskGroup() as tasks:
            for watch in self._watches:
                tasks.create_task(watch.run())
            tasks.create_task(self._keep())
            tasks.create_task(self._events.run())

    def _event(self, _kind: str, _item: dict[str, Any]) -> None:
        self._changed.set()

    async def _keep(self) -> None:
        held: Credentials | None = None
        failures = 0
        while True:
            self._changed.clear()
            self._changes.clear()
            listened = self._listener.listens
            try:
                held = await self._store.establish(held)
                await self._listener.use(held.serving.certificate_pem(), held.serving.key_pem())
            except Exception as error:
                if isinstance(error, OSError) and not listened:
                    raise
                failures += 1
                delay = delay_s(failures, _FIRST_RETRY_S, _LONGEST_RETRY_S)
                problem = self._problem(error, failures)
                self._report_problem(problem)
                # Not the readiness: a replica that has a good certificate must go on serving.
                self._metrics.certificates_kept.set(0)
                what = "cannot check certificate and caBundle" if held else "no trusted certificate yet"
                logger.warning("%s, again in %.1f s: %s", what, delay, problem)
                self._record_changes()
                await self._sleep(_FIRST_RETRY_S)
                await self._wait(delay - _FIRST_RETRY_S)
                continue
            failures = 0
            self._metrics.trusts(authority_expires_s=held.authority.certificate.not_valid_after_utc.timestamp())
            self._report_problem(None)
            self._metrics.certificates_kept.set(1)
            too_often = bool(self._changes) and not self._bucket.take()
            self._record_changes()
            await self._sleep(min(_PAUSE_S, self._settings.recheck_s) if too_often else _SETTLE_S)
            due = next_step(held, self._settings.lifetimes) - self._utcnow()
            await self._wait(min(self._settings.recheck_s, max(due.total_seconds(), _FIRST_RETRY_S)))

    def _problem(self, error: Exception, failures: int) -> str:
        """Why a check failed. A defect is a failure too, as a replica with a good certificate must go on serving."""
        problem = str(error)
        if not isinstance(error, (ApiError, StoreBusyError, UnusableCertificateError)):
            logger.error("defect while keeping certificate and caBundle", exc_info=error)
            problem = "a defect in the webhook, please report it: its log has the details"
        # No event about an API server that does not answer: it would have to be posted there.
        refused = not isinstance(error, ApiError) or 400 <= error.status < 500  # noqa: PLR2004 - client errors
        if refused and failures % _FAILURES_AGAIN == _FAILURES_TOLD:
            self._changes.append(
                Change(Kind.STUCK, f"certificate and caBundle cannot be kept as they should: {problem}")
            )
        return problem

    def _record_changes(self) -> None:
        for change in self._changes:
            self._metrics.certificates_changed(change.kind.value)
        self._events.record(self._changes)

    async def _wait(self, seconds: float) -> None:
        """Wait for `seconds`, or until one of the objects changes."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass
