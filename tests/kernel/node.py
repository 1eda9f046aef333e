"""A node as the reconciler has it: the real controller, monitor and shaper; tests speak for the runtime and the API."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

from reconciler.controller import Controller
from reconciler.kernel.monitor import Monitor
from reconciler.metrics import Metrics
from reconciler.monitor_reader import MonitorReader
from reconciler.nri.messages import PodSandbox
from reconciler.pods import PodView, from_api
from reconciler.report import Notice
from reconciler.shaping import Shaper
from tests.kernel.lab import Pod

MANAGED = {"ipvlan-bandwidth.io/managed": "true"}


@dataclass(frozen=True, slots=True)
class Told:
    """A notice about a Pod, and when (s, monotonic)."""

    at: float
    pod: str
    notice: Notice


class Node:
    """Runs on a thread of its own while a `with` lasts. `told` is all that people were told, in order."""

    def __init__(self, shaper: Shaper) -> None:
        self.told: list[Told] = []
        self.metrics = Metrics()
        self._shaper = shaper
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="node")
        self._executor = ThreadPoolExecutor(1)
        self._monitor = Monitor()
        self._work: list[asyncio.Task[None]] = []

    def record(self, pod: PodView, notice: Notice) -> None:
        """As reconciler.events.Events."""
        self.told.append(Told(time.monotonic(), pod.name, notice))

    def record_node(self, notice: Notice) -> None:
        """As reconciler.events.Events."""
        self.told.append(Told(time.monotonic(), "", notice))

    def forget(self, uid: str) -> None:
        """As reconciler.events.Events."""

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._begin())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._executor.shutdown()
        self._monitor.close()

    def start(self, pod: Pod, **annotations: str) -> None:
        """The runtime starts a Pod with these limits, and waits for the hook."""
        self._do(self.controller.on_run(_sandbox(pod, annotations)))

    def stop(self, pod: Pod) -> None:
        """The runtime stops a Pod, and waits for the hook."""
        self._do(self.controller.on_stop(_sandbox(pod, {})))

    def remove(self, pod: Pod) -> None:
        """The runtime removes a Pod, after it has taken its network down."""
        self._do(self.controller.on_remove(_sandbox(pod, {})))

    def collect(self) -> None:
        """What is done now and then for Pods that nobody told the end of."""
        self._do(self.controller.housekeeping.collect_garbage())
        self._loop.call_soon_threadsafe(self.controller.housekeeping.check_unreported)

    @property
    def watched(self) -> set[str]:
        """The network namespaces that are listened to."""
        return set(self._monitor._paths.values())

    def annotate(self, pod: Pod, **annotations: str) -> None:
        """The API server tells of a Pod with these annotations."""
        metadata = {
            "uid": pod.uid,
            "name": pod.name,
            "namespace": "shop",
            "labels": MANAGED,
            "annotations": _annotations(annotations),
        }
        self._loop.call_soon_threadsafe(self.controller.on_pod_event, "MODIFIED", from_api({"metadata": metadata}))

    def wait(self, pod: Pod, reason: str, *, since: float, seconds: float = 10) -> Told:
        """The first notice of a reason about a Pod after a time; fails when there is none for so long."""
        deadline = time.monotonic() + seconds
        while True:
            for told in list(self.told):
                if (told.pod, told.notice.reason) == (pod.name, reason) and told.at >= since:
                    return told
            assert time.monotonic() < deadline, f"no {reason} of {pod.name} in {seconds} s: {self.told}"
            time.sleep(0.01)

    def rest(self) -> None:
        """The resync visits nobody any more: what is found from now on, something told of."""
        self.resync.step = _nothing

    async def _begin(self) -> None:
        self.controller = Controller(
            lambda _: self._shaper,
            monitor=self._monitor,
            events=self,
            metrics=self.metrics,
            executor=self._executor,
            sleep=asyncio.sleep,
            monotonic=time.monotonic,
        )
        self.resync = self.controller.resync
        self.resync._sleep = _in_a_hurry
        self._reader = MonitorReader(self._monitor, self.controller)
        forever: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = (
            self.controller.run,
            self.resync.run,
            self.controller.housekeeping.run_audits,
        )
        self._work = [asyncio.create_task(each()) for each in forever]
        await self.controller.on_synchronize([])

    async def _end(self) -> None:
        self._reader.close()
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)


async def _nothing() -> None:
    pass


async def _in_a_hurry(seconds: float) -> None:
    """The resync goes round four times as often, so that tests need not wait for it."""
    await asyncio.sleep(seconds / 4)


def _sandbox(pod: Pod, limits: dict[str, str]) -> PodSandbox:
    return PodSandbox(
        id=pod.netns,
        name=pod.name,
        uid=pod.uid,
        namespace="shop",
        labels=MANAGED,
        annotations=_annotations(limits),
        netns_path=pod.netns,
    )


def _annotations(limits: dict[str, str]) -> dict[str, str]:
    return {f"kubernetes.io/{direction}-bandwidth": text for direction, text in limits.items()}
