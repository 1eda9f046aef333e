"""Events about the webhook's certificates, on its Deployment: `kubectl describe deployment` shows them.

Not on the Secret, for which `kubectl describe` shows no events, nor on the MutatingWebhookConfiguration, whose events
would have to be in the namespace `default`: so the right to create events is needed only in the webhook's own
namespace.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from certs.changes import Change, Kind
from webhook.common.event import event
from webhook.common.kubeapi import ApiError, KubeApi
from webhook.common.token_bucket import TokenBucket

# Somebody who overwrites the caBundle for ever must not fill etcd: ten at once, then one a minute.
BURST: Final = 10
PERIOD_S: Final = 60.0
# Events that wait while the API server accepts none.
MOST_WAITING: Final = 50

_EVENTS: Final = {
    Kind.MADE: ("Normal", "CertificatesMade"),
    Kind.RESTORED: ("Warning", "CertificatesRestored"),
    Kind.ANNOUNCED: ("Normal", "CAAnnounced"),
    Kind.ROTATED: ("Normal", "CARotated"),
    Kind.RENEWED: ("Normal", "CertificateRenewed"),
    Kind.RETIRED: ("Normal", "CARetired"),
    Kind.BUNDLE_REPAIRED: ("Warning", "CABundleRepaired"),
    Kind.STUCK: ("Warning", "CertificatesStuck"),
}

logger = logging.getLogger(__name__)


class CertificateEvents:
    """Posts events in a task of its own, so that the changes they report do not wait for the API server.

    A change without an event, because posting failed or there were too many, is still in the log.
    """

    def __init__(
        self,
        api: KubeApi,
        namespace: str,
        deployment: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        utcnow: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._deployment = deployment
        self._utcnow = utcnow
        self._bucket = TokenBucket(BURST, PERIOD_S, monotonic)
        self._waiting: asyncio.Queue[Change] = asyncio.Queue(MOST_WAITING)

    def record(self, changes: Sequence[Change]) -> None:
        """Queue an event for each change that has one."""
        for change in changes:
            if change.kind in _EVENTS and self._bucket.take():
                try:
                    self._waiting.put_nowait(change)
                except asyncio.QueueFull:
                    logger.warning("no event, as too many wait for the API server: %s", change.text)

    async def run(self) -> None:
        """Post queued events until cancelled."""
        while True:
            change = await self._waiting.get()
            try:
                await self._post(change)
            except ApiError as error:
                logger.warning("cannot post an event: %s", error)

    async def _post(self, change: Change) -> None:
        # `kubectl describe` finds events by the uid too.
        path = f"/apis/apps/v1/namespaces/{self._namespace}/deployments/{self._deployment}"
        found = await self._api.get(path)
        try:
            uid = found["metadata"]["uid"]
        except (KeyError, TypeError) as error:
            raise ApiError(0, "Malformed", f"the API server's answer to GET {path} has no uid") from error
        await self._api.create(f"/api/v1/namespaces/{self._namespace}/events", self._body(change, uid))

    def _body(self, change: Change, uid: str) -> dict[str, Any]:
        event_type, reason = _EVENTS[change.kind]
        about = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": self._deployment,
            "namespace": self._namespace,
            "uid": uid,
        }
        return event(
            about,
            event_type=event_type,
            reason=reason,
            message=change.text,
            instance=self._deployment,
            now=self._utcnow(),
            suffix=secrets.token_hex(8),
        )
