"""An API server of Pods over HTTP, as far as lists and watches go: versions, pages, bookmarks, compaction, and faults.

Its twin is the real kube-apiserver in tests/cluster/test_watch.py.
"""

import asyncio
import json
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiohttp import web

from webhook.common.endpoint import Endpoint
from webhook.common.kubeapi import KubeApi

Json = dict[str, Any]
PATH = "/api/v1/pods"


def client(url: str, token: str | None = None, **more: Any) -> KubeApi:
    tls = ssl.create_default_context()

    async def authorization() -> str | None:
        return token and f"Bearer {token}"

    return KubeApi(Endpoint(url, lambda: tls, authorization), user_agent="t/1", **more)


class ApiServer:
    """Serves on loopback, at one port for as long as it lives. `asked` has the parameters of each list and watch."""

    def __init__(self) -> None:
        self.pods: dict[str, Json] = {}
        self.version = 10
        self.compacted = 0
        self.asked: list[Mapping[str, str]] = []
        self.is_deaf = False
        self._history: list[tuple[int, str, Json]] = []
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self.port = 0
        self._garbage: list[bytes] = []

    def pod(self, name: str, value: str) -> Json:
        """A Pod as it stands in the store, but for its version."""
        return {"metadata": {"name": name, "labels": {"value": value}}}

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        application = web.Application()
        application.router.add_get(PATH, self._serve)
        self.routes(application)
        self._runner = web.AppRunner(application, shutdown_timeout=0.01)  # 0 would be for ever
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True, ssl_context=tls)
        await site.start()
        assert isinstance(site._server, asyncio.Server)
        self.port = site._server.sockets[0].getsockname()[1]

    def routes(self, application: web.Application) -> None:
        """More than Pods, where a test wants it."""

    async def stop(self) -> None:
        """Gone: connections are cut, and new ones refused."""
        if self._runner:
            await self._runner.cleanup()
        self._runner = None

    def api(self, *, watch_silence_s: float = 60.0) -> KubeApi:
        return client(f"http://127.0.0.1:{self.port}", watch_silence_s=watch_silence_s)

    async def put(self, *names: str, kind: str = "MODIFIED", value: str = "") -> None:
        """Pods are made or changed, or DELETED."""
        for name in names:
            self.version += 1
            pod = self.pod(name, value)
            pod["metadata"]["resourceVersion"] = str(self.version)
            if kind == "DELETED":
                del self.pods[name]
            else:
                self.pods[name] = pod
            self._history.append((self.version, kind, pod))
        await self._tell()

    async def send(self, garbage: bytes) -> None:
        """Something else than an event goes out on every watch."""
        self._garbage.append(garbage)
        await self._tell()

    async def compact(self) -> None:
        """Forget how it came to what is now."""
        self.compacted = self.version
        self._history.clear()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    @property
    def lists(self) -> list[Mapping[str, str]]:
        return [each for each in self.asked if "watch" not in each]

    @property
    def watches(self) -> list[Mapping[str, str]]:
        return [each for each in self.asked if "watch" in each]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        return await (self._watch(request) if "watch" in request.query else self._list(request))

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if int(request.query.get("resourceVersion") or 0) > self.version:
            return _status(504, "Timeout", f"current: {self.version}", "ResourceVersionTooLarge")
        names = sorted(self.pods)
        start = int(request.query.get("continue", 0))
        end = start + int(request.query.get("limit", len(names)))
        metadata = {"resourceVersion": str(self.version)}
        if end < len(names):
            metadata["continue"] = str(end)
        return web.json_response({"metadata": metadata, "items": [self.pods[name] for name in names[start:end]]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        sent = int(request.query["resourceVersion"])
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        if sent < self.compacted:
            return _status(410, "Expired", f"too old resource version: {sent} ({self.compacted})")
        await response.prepare(request)
        with suppress(ConnectionResetError):  # the client is gone
            await self._tell_of_changes(response, sent)
        return response

    async def _tell_of_changes(self, response: web.StreamResponse, sent: int) -> None:
        garbage = len(self._garbage)
        while True:
            if self.is_deaf:
                await asyncio.Event().wait()  # the connection stands, and nothing comes
            due = [each for each in self._history if each[0] > sent]
            await response.write(
                b"".join(json.dumps({"type": kind, "object": pod}).encode() + b"\n" for _, kind, pod in due)
            )
            sent = max([sent, *(version for version, _, _ in due)])
            for each in self._garbage[garbage:]:
                await response.write(each)
            garbage = len(self._garbage)
            async with self._changed:
                if not any(version > sent for version, _, _ in self._history[-1:]) and garbage == len(self._garbage):
                    await self._changed.wait()


def _status(code: int, reason: str, message: str, cause: str = "") -> web.Response:
    status = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return web.json_response({**status, "details": {"causes": [{"reason": cause}] if cause else []}}, status=code)
