"""What each opted-in Namespace decides for its Pods, known without asking the API server for each Pod.

An AdmissionReview carries no labels of the Namespace, so they are kept here by list and watch. The API server calls
the webhook by its own view of them, which may be ahead of ours by a moment: a Namespace that is not here is asked for.
"""

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, Protocol

from webhook.contract import NETWORK_LABEL
from webhook.kubeapi import ApiError
from webhook.policy import Policy
from webhook.reflector import ListAndWatch, Reflector
from webhook.token_bucket import TokenBucket

PATH: Final = "/api/v1/namespaces"
# The API server waits `timeoutSeconds` for an admission, 5 by our manifest, and should hear why there is none.
ASK_S: Final = 4.0
# At once: anybody can send reviews of Pods in Namespaces that are not opted in, and each costs a GET.
MOST_ASKED: Final = 16
# Whoever waits has one of the server's connections for as long as the API server says nothing.
MOST_WAITING: Final = 48
# And in time: a Namespace is asked for only until the watch tells of its label.
ASKED_IN_A_BURST: Final = 200
ASKED_EVERY_S: Final = 0.02


class Api(ListAndWatch, Protocol):
    """The part of KubeApi that is needed here."""

    async def get(self, path: str) -> dict[str, Any]:
        """Read an object."""
        ...


class Namespaces:
    """The policies of the labelled Namespaces. `run` keeps them true; until `synced` each costs a GET.

    `on_restart` is told of each list or watch that failed.
    """

    def __init__(self, api: Api, on_restart: Callable[[], None] = lambda: None) -> None:
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
        """Whether the API server tells of changes just now."""
        return self._reflector.connected

    def __len__(self) -> int:
        return len(self._policies)

    async def run(self) -> None:
        """Follow the API server until cancelled."""
        await self._reflector.run()

    async def policy_of(self, namespace: str) -> Policy:
        """The policy for Pods of a Namespace; ApiError when it is not known and cannot be asked for."""
        known = self._policies.get(namespace)
        if known is not None:
            return known
        if self._waiting >= MOST_WAITING or not self._get_bucket.take():
            raise ApiError(0, "Busy", "too many Namespaces that are not known to be opted in are asked for at once")
        self._waiting += 1
        try:
            # Not kept: whatever it says, the watch will say it too, and in the right order with what comes after.
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
        # One that loses its label leaves the selection: the API server tells that as DELETED too.
        if kind == "DELETED":
            self._policies.pop(item["metadata"]["name"], None)
        else:
            self._policies[item["metadata"]["name"]] = _policy(item)


def _policy(item: dict[str, Any]) -> Policy:
    metadata = item["metadata"]
    return Policy.from_label(metadata["name"], (metadata.get("labels") or {}).get(NETWORK_LABEL))
