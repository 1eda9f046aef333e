"""A small API server in memory, of the objects that the webhook's server reads and writes.

Its twin is the real one in the cluster suite, where the webhook runs against kube-apiserver.
"""

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from webhook.common.kubeapi import ApiError

Json = dict[str, Any]
OWN = "ipvlan-bandwidth"
NAMESPACES = "/api/v1/namespaces"
SECRETS = "/api/v1/namespaces/ipvlan-bandwidth/secrets"  # - a path, no secret
SECRET = f"{SECRETS}/webhook-certs"
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
CONFIGURATION = f"{CONFIGURATIONS}/ipvlan-bandwidth"
DEPLOYMENT = "/apis/apps/v1/namespaces/ipvlan-bandwidth/deployments/webhook"
EVENTS = "/api/v1/namespaces/ipvlan-bandwidth/events"


def namespace(name: str, network: str | None = None) -> Json:
    labels = {"ipvlan-bandwidth.io/network": network} if network is not None else {}
    return {"metadata": {"name": name, "labels": labels, "resourceVersion": "1"}}


class FakeApi:
    """Objects by path with versions, and watches of Namespaces, the Secret and the configuration.

    `down` makes every call fail, `deaf` keeps watches from hearing of changes. A test that changes `objects` by itself
    tells the watches with `changed`.
    """

    def __init__(self, *namespaces: Json) -> None:
        self.objects: dict[str, Json] = {f"{NAMESPACES}/{each['metadata']['name']}": each for each in namespaces}
        self.objects[CONFIGURATION] = {
            "metadata": {"name": "ipvlan-bandwidth", "resourceVersion": "1"},
            "webhooks": [{"name": "pods.ipvlan-bandwidth.io", "clientConfig": {"service": {"name": "webhook"}}}],
        }
        self.objects[DEPLOYMENT] = {"metadata": {"name": "webhook", "uid": "d-1", "resourceVersion": "1"}}
        self.events: asyncio.Queue[Json] = asyncio.Queue()
        self.down = False
        self.deaf = False
        self.calls: list[str] = []
        self.watching = asyncio.Event()
        self._watches: list[tuple[str, asyncio.Queue[Json]]] = []

    def _call(self, what: str) -> None:
        self.calls.append(what)
        if self.down:
            raise ApiError(0, "Unreachable", "no answer")

    def _found(self, path: str) -> Json:
        if path not in self.objects:
            raise ApiError(404, "NotFound", f"{path} not found")
        return self.objects[path]

    def posted(self) -> list[tuple[str, str]]:
        """The type and reason of each event that was posted."""
        return [(o["type"], o["reason"]) for path, o in self.objects.items() if path.startswith(EVENTS)]

    def changed(self, path: str, kind: str = "MODIFIED") -> None:
        for collection, queue in [] if self.deaf else self._watches:
            if path.startswith(f"{collection}/"):
                stored = self.objects.get(path, {"metadata": {"name": path.rsplit("/", 1)[1]}})
                queue.put_nowait({"type": kind, "object": copy.deepcopy(stored)})

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Json:
        self._call(f"GET {path}")
        assert params is None
        return copy.deepcopy(self._found(path))

    async def read_list(self, path: str, params: Mapping[str, str], take: Callable[[Any], None]) -> Json:
        self._call(f"GET {path}")
        if path == NAMESPACES:
            assert params["labelSelector"] == "ipvlan-bandwidth.io/network"
        else:
            assert params["fieldSelector"] == f"metadata.name={'webhook-certs' if path == SECRETS else OWN}"
        items = [
            item
            for key, item in self.objects.items()
            if key.startswith(f"{path}/") and (path != NAMESPACES or item["metadata"].get("labels"))
        ]
        for item in copy.deepcopy(items):
            take(item)
        return {"metadata": {"resourceVersion": "1"}, "items": []}

    async def watch(
        self, path: str, params: Mapping[str, str], on_open: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[Json]:
        self._call(f"WATCH {path} {params.get('labelSelector') or params['fieldSelector']}")
        queue: asyncio.Queue[Json] = asyncio.Queue()
        if path == NAMESPACES:
            queue = self.events
            self.watching.set()
        else:
            self._watches.append((path, queue))
        on_open()
        while True:
            yield await queue.get()

    async def create(self, path: str, body: Mapping[str, Any]) -> Json:
        self._call(f"POST {path}")
        name = f"{path}/{body['metadata']['name']}"
        if name in self.objects:
            raise ApiError(409, "AlreadyExists", "it exists")
        return self._store(name, body, 0)

    async def replace(self, path: str, body: Mapping[str, Any]) -> Json:
        self._call(f"PUT {path}")
        held = self._found(path)["metadata"]["resourceVersion"]
        if body["metadata"]["resourceVersion"] != held:
            raise ApiError(409, "Conflict", "it was modified")
        return self._store(path, body, int(held))

    async def patch(self, path: str, body: Mapping[str, Any], *, content_type: str) -> Json:
        self._call(f"PATCH {path}")
        assert content_type == "application/strategic-merge-patch+json"
        held = self._found(path)
        version = held["metadata"]["resourceVersion"]
        if body["metadata"] != {"resourceVersion": version}:
            raise ApiError(409, "Conflict", "it was modified")
        for change in body["webhooks"]:
            (webhook,) = [each for each in held["webhooks"] if each["name"] == change["name"]]
            webhook["clientConfig"].update(change["clientConfig"])
        return self._store(path, held, int(version))

    async def close(self) -> None:
        self.calls.append("close")

    def _store(self, path: str, body: Mapping[str, Any], version: int) -> Json:
        stored = {**body, "metadata": {**body["metadata"], "resourceVersion": str(version + 1)}}
        self.objects[path] = stored
        self.changed(path)
        return copy.deepcopy(stored)


def shop() -> FakeApi:
    """Of a cluster with one namespace, which has opted in."""
    return FakeApi(namespace("shop", "kube-system.ipvlan"))
