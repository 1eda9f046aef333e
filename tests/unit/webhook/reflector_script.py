"""An API server by a script, for the reflector: what it answers, and what it was asked."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from webhook.common.kubeapi import ApiError
from webhook.common.reflector import Reflector

Json = dict[str, Any]
UNREACHABLE = ApiError(0, "Unreachable", "no answer")
GONE = ApiError(410, "Expired", "too old resource version")
FUTURE = ApiError(504, "Timeout", "of the future", ["ResourceVersionTooLarge"])
HOURS = 3600.0


def item(name: str, version: int) -> Json:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def listed(version: int, *names: str) -> Json:
    return {"metadata": {"resourceVersion": str(version)}, "items": [item(name, version) for name in names]}


def event(kind: str, name: str, version: int) -> Json:
    return {"type": kind, "object": item(name, version)}


@dataclass
class Watch:
    """One watch connection: its events, how long it lasts, and how it ends."""

    events: list[Json] = field(default_factory=list)
    seconds: float = HOURS
    error: Exception | None = None
    opens: bool = True


class Script:
    """Lists and watches in their order; when they are used up the run is over. Keeps what was asked and seen."""

    def __init__(self, lists: list[Json | ApiError], watches: list[Watch]) -> None:
        self.lists, self.watches = list(lists), list(watches)
        self.now = 0.0
        self.over = asyncio.Event()
        self.slept: list[float] = []
        self.asked: list[Mapping[str, str]] = []
        self.listed: list[Mapping[str, str]] = []
        self.seen: list[str] = []
        self.told: list[float] = []
        self.open = 0
        self.states: list[tuple[bool, int]] = []

    async def read_list(self, path: str, params: Mapping[str, str], take: Callable[[Any], None]) -> Json:
        assert path == "/api/v1/pods"
        assert params["fieldSelector"] == "spec.nodeName=n"
        self.listed.append({key: value for key, value in params.items() if key != "fieldSelector"})
        if not self.lists:
            await self._end()
        answer = self.lists.pop(0)
        if isinstance(answer, ApiError):
            raise answer
        if not isinstance(answer.get("items"), list):
            return answer
        for each in answer["items"]:
            take(each)
        return {**answer, "items": []}

    async def watch(
        self, path: str, params: Mapping[str, str], on_open: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[Json]:
        assert path == "/api/v1/pods"
        self.asked.append(params)
        self.open += 1
        try:
            if not self.watches:
                await self._end()
            watch = self.watches.pop(0)
            if watch.opens:
                on_open()
            self._keep_state()
            for each in watch.events:
                yield each
            self.now += watch.seconds
            if watch.error:
                raise watch.error
        finally:
            self.open -= 1

    async def _end(self) -> None:
        self.over.set()
        await asyncio.Event().wait()

    def _keep_state(self) -> None:
        refused = self.made.refused
        self.states.append((self.made.connected, refused.status if refused else 0))

    async def sleep(self, seconds: float) -> None:
        self._keep_state()
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def reflector(self, uniform: float = 1.0) -> Reflector:
        self.made = Reflector(
            self,
            "/api/v1/pods",
            params={"fieldSelector": "spec.nodeName=n"},
            on_sync=lambda items: self.seen.append("sync " + ",".join(each["metadata"]["name"] for each in items)),
            on_event=lambda kind, each: self.seen.append(f"{kind} {each['metadata']['name']}"),
            on_restart=lambda _: self.told.append(self.now),
            monotonic=lambda: self.now,
            sleep=self.sleep,
            uniform=lambda: uniform,
        )
        return self.made

    async def play(self, uniform: float = 1.0) -> Reflector:
        return await self.play_on(self.reflector(uniform))

    async def play_on(self, reflector: Reflector) -> Reflector:
        task = asyncio.create_task(reflector.run())
        over = asyncio.create_task(self.over.wait())
        await asyncio.wait({task, over}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            over.cancel()
            task.result()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return reflector
