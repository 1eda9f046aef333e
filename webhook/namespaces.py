"""What each opted-in Namespace decides for its Pods, known without asking the API server for each Pod.

An AdmissionReview carries no labels of the Namespace, so they are kept here by list and watch. The API server decides
by its own view of the labels whether to call the webhook, and may be a moment ahead of ours: a Namespace that is
missing here is read with a GET.
"""

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from webhook.common.contract import NETWORK_LABEL
from webhook.common.kubeapi import ApiError, KubeApi
from webhook.common.reflector import Reflector
from webhook.common.token_bucket import TokenBucket
from webhook.policy import Policy

PATH: Final = "/api/v1/namespaces"
# The API server waits `timeoutSeconds` for an admission, 5 by our manifest: it should get the reason before that.
ASK_S: Final = 4.0
# GETs at once: anybody can send reviews of Pods in Namespaces that are not opted in, and each costs one.
MOST_ASKED: Final = 16
# Each waiting request holds one of the server's connections until the API server answers.
MOST_WAITING: Final = 48
# The rate of GETs: a Namespace is read only until the watch delivers its label.
ASKED_IN_A_BURST: Final = 200
ASKED_EVERY_S: Final = 0.02


class Namespaces:
    """The policies of the labelled Namespaces. `run` keeps them current; until `synced`, each costs a GET.

    `on_restart` is called with the error of each list or watch that failed.
    """

    def __init__(self, api: KubeApi, on_restart: Callable[[ApiError], None] = lambda _: None) -> None:
        self._api = api
        self._policies: dict[str, Policy] = {}
        self._asking = asyncio.Semaphore(MOST_ASKED)
        self._waiting = 0
        self._get_bucket = TokenBucket(ASKED_IN_A_BURST, ASKED_EVERY_S, time.monotonic)
        self._reflector = Reflector(
            api,
            PATH,
            params={"labelSelector": NETWORK_LABEL},
            on_sync=self._sync,
            on_event=self._event,
            on_restart=on_restart,
            spread_s=0,
        )

    @property
    def synced(self) -> asyncio.Event:
        """Set after the first complete list."""
        return self._reflector.synced

    @property
    def connected(self) -> bool:
        """Whether changes are received at the moment (`Reflector.connected`)."""
        return self._reflector.connected

    def __len__(self) -> int:
        return len(self._policies)

    async def run(self) -> None:
        """Follow the API server until cancelled."""
        await self._reflector.run()

    async def policy_of(self, namespace: str) -> Policy:
        """The policy for Pods of a Namespace; ApiError when it is not known here and cannot be read."""
        known = self._policies.get(namespace)
        if known is not None:
            return known
        if self._waiting >= MOST_WAITING or not self._get_bucket.take():
            raise ApiError(0, "Busy", "too many Namespaces that are not known to be opted in are asked for at once")
        self._waiting += 1
        try:
            # The answer is not kept: the watch will deliver it too, in the right order with later changes.
            async with asyncio.timeout(ASK_S), self._asking:
                return _policy(await self._api.get(f"{PATH}/{namespace}"))
        except TimeoutError as error:
            raise ApiError(0, "Timeout", f"no answer from the API server within {ASK_S:g} s") from error
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return Policy()
            raise
        finally:
            self._waiting -= 1

    def _sync(self, items: list[dict[str, Any]]) -> None:
        self._policies = {item["metadata"]["name"]: _policy(item) for item in items}

    def _event(self, kind: str, item: dict[str, Any]) -> None:
        # A Namespace that loses its label leaves the selection: the API server reports that as DELETED too.
        if kind == "DELETED":
            self._policies.pop(item["metadata"]["name"], None)
        else:
            self._policies[item["metadata"]["name"]] = _policy(item)


def _policy(item: dict[str, Any]) -> Policy:
    metadata = item["metadata"]
    return Policy.from_label(metadata["name"], (metadata.get("labels") or {}).get(NETWORK_LABEL))
