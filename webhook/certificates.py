"""The webhook's side of `certs`: its Secret and its MutatingWebhookConfiguration in the API, and TLS from memory."""

import base64
import os
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, Protocol

from certs.authority import Credentials
from certs.store import StoredSecret
from webhook.kubeapi import ApiError

STRATEGIC_MERGE_PATCH: Final = "application/strategic-merge-patch+json"
_CONFIGURATIONS: Final = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


class ReadWrite(Protocol):
    """The part of KubeApi that is needed here."""

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Read an object."""
        ...

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object."""
        ...

    async def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace an object at its resourceVersion."""
        ...

    async def patch(self, path: str, body: Mapping[str, Any], *, content_type: str) -> dict[str, Any]:
        """Patch an object."""
        ...


class KubeSecret:
    """One Secret of the cluster as `certs.store.SecretStore`; its methods raise ApiError."""

    def __init__(self, api: ReadWrite, namespace: str, name: str) -> None:
        self._api = api
        self._collection = f"/api/v1/namespaces/{namespace}/secrets"
        self._name = name
        # What is replaced keeps what is not ours to change: the Secret's type, which is immutable, and its labels.
        self._last: dict[str, Any] = {}

    async def read(self) -> StoredSecret | None:
        """The Secret, or None."""
        try:
            self._last = await self._api.get(f"{self._collection}/{self._name}")
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return StoredSecret(self._last.get("data") or {}, self._last["metadata"]["resourceVersion"])

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

    async def replace(self, data: Mapping[str, str], version: str) -> bool:
        """Replace its data, unless its version is another by now."""
        metadata = {**self._last["metadata"], "resourceVersion": version}
        try:
            await self._api.replace(
                f"{self._collection}/{self._name}", {**self._last, "metadata": metadata, "data": dict(data)}
            )
        except ApiError as error:
            if error.status in {HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND}:
                return False
            raise
        return True


async def trust(api: ReadWrite, configuration: str, bundle: bytes) -> None:
    """Have API servers trust a PEM bundle when they call the webhooks of a MutatingWebhookConfiguration.

    Writes only what differs, by a strategic merge patch, which merges the list of webhooks by name. Raises ApiError.
    """
    path = f"{_CONFIGURATIONS}/{configuration}"
    wanted = base64.b64encode(bundle).decode("ascii")
    found = await api.get(path)
    names = [
        webhook["name"]
        for webhook in found.get("webhooks") or []
        if (webhook.get("clientConfig") or {}).get("caBundle") != wanted
    ]
    if names:
        webhooks = [{"name": name, "clientConfig": {"caBundle": wanted}} for name in names]
        await api.patch(path, {"webhooks": webhooks}, content_type=STRATEGIC_MERGE_PATCH)


def server_context() -> ssl.SSLContext:
    """TLS 1.2 and up for the server; `serve_with` gives it a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def serve_with(context: ssl.SSLContext, credentials: Credentials) -> None:
    """Use the serving certificate for all handshakes from now on; connections that are open stay as they are."""
    # `ssl` loads certificates from files only: this one is in memory alone, so that the key is on no disk.
    descriptor = os.memfd_create("serving", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(credentials.serving.certificate_pem() + credentials.serving.key_pem())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
