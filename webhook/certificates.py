"""The webhook's side of `certs`: its Secret and its MutatingWebhookConfiguration in the API."""

import base64
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from certs.store import Published, StoredSecret
from webhook.common.kubeapi import ApiError, KubeApi

STRATEGIC_MERGE_PATCH: Final = "application/strategic-merge-patch+json"
CONFIGURATIONS: Final = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


def secrets_path(namespace: str) -> str:
    """The collection of a namespace's Secrets."""
    return f"/api/v1/namespaces/{namespace}/secrets"


class KubeSecret:
    """One Secret of the cluster as `certs.store.SecretStore`; its methods raise ApiError."""

    def __init__(self, api: KubeApi, namespace: str, name: str) -> None:
        self._api = api
        self._collection = secrets_path(namespace)
        self._name = name

    async def read(self) -> StoredSecret | None:
        """The Secret, or None."""
        try:
            found = await self._api.get(f"{self._collection}/{self._name}")
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return StoredSecret(found.get("data") or {}, found)

    async def create(self, data: Mapping[str, str]) -> bool:
        """Create it, unless it exists."""
        labels = {"app.kubernetes.io/part-of": "ipvlan-bandwidth", "app.kubernetes.io/managed-by": "webhook"}
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self._name, "labels": labels},
            "type": "kubernetes.io/tls",
            "data": dict(data),
        }
        try:
            await self._api.create(self._collection, body)
        except ApiError as error:
            if error.status == HTTPStatus.CONFLICT:
                return False
            raise
        return True

    async def replace(self, stored: StoredSecret, data: Mapping[str, str]) -> bool:
        """Replace its data, unless it has changed since it was read: at the resourceVersion that it had.

        The fields that are not ours stay: the Secret's type, which is immutable, and its labels.
        """
        try:
            await self._api.replace(f"{self._collection}/{self._name}", {**stored.resource, "data": dict(data)})
        except ApiError as error:
            if error.status in {HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND}:
                return False
            raise
        return True


class KubeBundle:
    """The CA bundle in a MutatingWebhookConfiguration as `certs.store.BundleStore`; its methods raise ApiError."""

    def __init__(self, api: KubeApi, configuration: str) -> None:
        self._api = api
        self._path = f"{CONFIGURATIONS}/{configuration}"

    async def read(self) -> Published:
        """The bundle of each webhook of the configuration, by its name; empty where there is none.

        A configuration without a webhook is as good as none: API servers would ask nobody.
        """
        found = await self._api.get(self._path)
        if not found.get("webhooks"):
            raise ApiError(HTTPStatus.NOT_FOUND, "NotFound", f"{self._path} has no webhook: apply the manifests again")
        bundles = {
            webhook["name"]: base64.b64decode((webhook.get("clientConfig") or {}).get("caBundle") or "")
            for webhook in found["webhooks"]
        }
        return Published(bundles, found["metadata"]["resourceVersion"])

    async def replace(self, published: Published, bundle: bytes) -> bool:
        """Have API servers trust a bundle when they call these webhooks, unless the configuration has changed since.

        By a strategic merge patch, which merges the list of webhooks by name and leaves all else as it is.
        """
        client = {"caBundle": base64.b64encode(bundle).decode("ascii")}
        body = {
            "metadata": {"resourceVersion": published.version},
            "webhooks": [{"name": name, "clientConfig": client} for name in published.bundles],
        }
        try:
            await self._api.patch(self._path, body, content_type=STRATEGIC_MERGE_PATCH)
        except ApiError as error:
            if error.status == HTTPStatus.CONFLICT:
                return False
            raise
        return True
