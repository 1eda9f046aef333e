"""The loop that keeps the kernel as the Pods ask for it.

Two sources say what should be (the runtime's hooks, and the watch on this node's Pods), one says that something
changed in the kernel (netlink), and all three do the same: name a Pod to look at. Looking at a Pod is idempotent, and
one at a time, on the one thread that works on the kernel; a hook goes ahead of everything that waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar

from reconciler import latecomers, pods
from reconciler.intent import intent
from reconciler.latecomers import Latecomers
from reconciler.metrics import Metrics
from reconciler.nri.messages import PodSandbox
from reconciler.pods import PodView
from reconciler.report import NOTHING, Applied, Notice, Reason, report
from reconciler.sandboxes import Sandbox, Sandboxes
from reconciler.shaping import NetnsGoneError, Outcome, PodCounters, ShapingError
from webhook.contract import Limits, Quantity

log = logging.getLogger(__name__)
T = TypeVar("T")
Key = tuple[str, str]

# A Pod whose kernel state keeps changing (one with NET_ADMIN can do that) is looked at this often and not more.
SETTLE_S = 0.1
RETRY_S = (1.0, 2.0, 5.0, 15.0, 60.0)


class Shaper(Protocol):
    """What the controller needs of the kernel side; every call blocks, for milliseconds."""

    adopted: bool

    def shape(self, pod_uid: str, netns_path: str, limits: Limits) -> Outcome:
        """Make one netns hold these limits."""
        ...

    def release(self, pod_uid: str, netns_path: str) -> None:
        """The Pod is gone: take away what is left, free its slot."""
        ...

    def collect(self, live: Collection[Key]) -> int:
        """Free the slots of those that are gone."""
        ...

    def counters(self) -> Sequence[PodCounters]:
        """What each slot has counted."""
        ...


class Monitor(Protocol):
    """Hears of changes in the network namespaces it was told of."""

    def watch(self, netns_path: str) -> None:
        """Listen to a netns."""
        ...

    def unwatch(self, netns_path: str) -> None:
        """Stop listening to it."""
        ...


class Tell(Protocol):
    """Where notices go."""

    def tell(self, pod: PodView, notice: Notice) -> None:
        """Tell of something about a Pod."""
        ...

    def forget(self, uid: str) -> None:
        """The Pod is gone."""
        ...


class Controller:
    """Holds what is known of this node's Pods, and applies it."""

    def __init__(
        self,
        start: Callable[[Iterable[Key]], Shaper],
        *,
        monitor: Monitor,
        events: Tell,
        metrics: Metrics,
        executor: Executor,
        sleep: Callable[[float], Awaitable[None]],
        monotonic: Callable[[], float],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._start, self._monitor, self._events, self._metrics = start, monitor, events, metrics
        self._executor, self._sleep, self._monotonic, self._now = executor, sleep, monotonic, now
        self._shaper: asyncio.Future[Shaper] = asyncio.get_running_loop().create_future()
        self._starting: asyncio.Task[None] | None = None
        self._sandboxes = Sandboxes()
        self._views: dict[str, PodView] = {}
        self._views_known = False
        self._latecomers = Latecomers()
        self._applied: dict[Key, Applied] = {}
        self._last_good: dict[str, Limits] = {}
        self._failures: dict[Key, int] = {}
        self._dirty: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._settling: set[str] = set()
        self._heard: set[str] = set()
        self._kernel = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()

    # -- the container runtime ---------------------------------------------------------------------------------------

    async def on_synchronize(self, sandboxes: Sequence[PodSandbox]) -> None:
        """The runtime tells all its Pods, after every connect. All NRI calls of the node wait meanwhile: be quick."""
        for gone in self._sandboxes.replace(map(_sandbox, sandboxes)):
            self._spawn(self._release(gone))
        self._latecomers.found(sandbox.key for sandbox in self._sandboxes if sandbox.key not in self._applied)
        log.info("synchronized with the container runtime", extra={"sandboxes": len(list(self._sandboxes))})
        if self._starting is None:
            self._starting = self._spawn(self._begin())
        else:
            for sandbox in self._sandboxes:
                self.look_at(sandbox.pod.uid)

    async def on_run(self, pod: PodSandbox) -> None:
        """A sandbox has its network, and no container of it runs yet: limit it now."""
        began = self._monotonic()
        sandbox = _sandbox(pod)
        if not sandbox.netns_path:
            return
        self._sandboxes.add(sandbox)
        await self._look(sandbox)
        self._metrics.hook_seconds.observe(self._monotonic() - began)

    async def on_stop(self, pod: PodSandbox) -> None:
        """The containers of a sandbox have ended; its network goes next."""
        sandbox = self._sandboxes.remove(pod.id)
        if sandbox is not None:
            await self._release(sandbox)

    async def on_remove(self, pod: PodSandbox) -> None:
        """A sandbox is gone; usually told by `on_stop` before."""
        await self.on_stop(pod)

    # -- the API server ----------------------------------------------------------------------------------------------

    def on_pods(self, items: Iterable[Mapping[str, Any]]) -> None:
        """The complete list of this node's Pods."""
        before, self._views = self._views, {v.uid: v for item in items if (v := pods.from_api(item))}
        self._views_known = True
        for uid in self._views.keys() | before.keys():
            if self._views.get(uid) != before.get(uid):
                self.look_at(uid)

    def on_pod_event(self, kind: str, pod: Mapping[str, Any]) -> None:
        """One Pod was ADDED, MODIFIED or DELETED."""
        view = pods.from_api(pod)
        if view is None:
            return
        if kind == "DELETED":
            self._views.pop(view.uid, None)
            self._events.forget(view.uid)
            return
        if self._views.get(view.uid) != view:
            self._views[view.uid] = view
            self.look_at(view.uid)

    # -- the kernel --------------------------------------------------------------------------------------------------

    def on_netns_changed(self, netns_paths: Iterable[str]) -> None:
        """Links, qdiscs or filters changed there: by us, by the runtime, or by somebody else."""
        for path in netns_paths:
            sandbox = self._sandboxes.at(path)
            if sandbox is not None and sandbox.pod.uid not in self._settling:
                self._settling.add(sandbox.pod.uid)
                self._spawn(self._settle(sandbox.pod.uid))

    def on_overrun(self) -> None:
        """Netlink notifications were lost: look at everything."""
        for sandbox in self._sandboxes:
            self.look_at(sandbox.pod.uid)

    def look_at(self, uid: str) -> None:
        """Have a Pod looked at soon; asking twice costs one look."""
        if uid not in self._queued:
            self._queued.add(uid)
            self._dirty.put_nowait(uid)

    async def run(self) -> None:
        """Look at what was named, one Pod after the other, for ever."""
        while True:
            uid = await self._dirty.get()
            self._queued.discard(uid)
            for sandbox in self._sandboxes.of(uid):
                await self._look(sandbox)

    async def run_collector(self, period_s: float = 30.0) -> None:
        """Free, now and then, what Pods that vanished without a word have left."""
        while True:
            await self._sleep(period_s)
            shaper = await asyncio.shield(self._shaper)
            live = {sandbox.key for sandbox in self._sandboxes}
            freed = await self._in_kernel(shaper.collect, live)
            if freed:
                log.info("freed the slots of Pods that are gone", extra={"slots": freed})

    @property
    def ready(self) -> bool:
        """Whether the program is loaded, and so Pods can be limited."""
        return self._shaper.done() and not self._shaper.cancelled() and self._shaper.exception() is None

    async def counters(self) -> list[tuple[PodView, PodCounters]]:
        """What the kernel counted, with the Pods' names, for the metrics."""
        if not self.ready:
            return []
        known = {sandbox.key: sandbox.pod for sandbox in self._sandboxes}
        counted = await self._in_kernel(self._shaper.result().counters)
        return [(known[key], c) for c in counted if (key := (c.pod_uid, c.netns_path or "")) in known]

    def wanted(self) -> tuple[int, int, int]:
        """How many sandboxes ask for a limit, have it, and failed to get it."""
        asking = [s.key for s in self._sandboxes if self._intent_of(s)]
        shaped = sum(1 for key in asking if self._applied.get(key, NOTHING).limits)
        return len(asking), shaped, sum(1 for key in asking if key in self._failures)

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Adopt what the kernel holds, or load the program; then look at every Pod."""
        shaper = await self._load()
        log.info("the BPF program is in force", extra={"adopted": shaper.adopted})
        for counted in await self._in_kernel(shaper.counters):
            limits = _limits_in(counted)
            self._last_good[counted.pod_uid] = limits
            if counted.netns_path is not None:
                self._applied[(counted.pod_uid, counted.netns_path)] = Applied(limits)
        self._shaper.set_result(shaper)
        for sandbox in self._sandboxes:
            self.look_at(sandbox.pod.uid)

    async def _load(self) -> Shaper:
        tries = 0
        while True:
            try:
                return await self._in_kernel(self._start, [sandbox.key for sandbox in self._sandboxes])
            except ShapingError as error:
                log.error("cannot start shaping on this node", extra={"error": str(error)})
                self._metrics.errors.labels(kind=type(error).__name__).inc()
                await self._sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
                tries += 1

    async def _look(self, sandbox: Sandbox) -> None:
        """Compare what one sandbox should have with what it has, and make it so."""
        shaper = await asyncio.shield(self._shaper)
        async with self._kernel:
            view = self._views.get(sandbox.pod.uid, sandbox.pod)
            wanted = intent(view, self._last_good.get(view.uid, Limits()))
            before = self._applied.get(sandbox.key, NOTHING)
            if not wanted.limits and not before.limits and not wanted.notices and sandbox.key not in self._failures:
                self._latecomers.forget(sandbox.key)
                return
            try:
                outcome = await self._run(shaper.shape, view.uid, sandbox.netns_path, wanted.limits)
            except NetnsGoneError:
                return
            except ShapingError as error:
                self._failed(sandbox, view, error)
                return
            self._failures.pop(sandbox.key, None)
            await self._listen(sandbox.netns_path)
        problems = tuple(Notice(problem.kind, problem.message) for problem in outcome.problems)
        # On another network than ipvlan nothing is in force, and a Pod that was never admitted is nobody's concern.
        on_ipvlan = bool(outcome.interfaces)
        in_force = wanted.limits if on_ipvlan else Limits()
        after = Applied(in_force, outcome.interfaces, (*(wanted.notices if on_ipvlan else ()), *problems))
        self._applied[sandbox.key], self._last_good[view.uid] = after, in_force
        newly_limited = bool(in_force) and not before.limits
        self._latecomers.looked_at(sandbox.key, newly_limited=newly_limited, now_s=self._now())
        self._tell_latecomer(sandbox, view)
        for notice in report(before, after, [str(step) for step in outcome.steps]):
            if notice.reason == Reason.REPAIRED:
                self._metrics.repairs.inc()
            self._events.tell(view, notice)

    def _tell_latecomer(self, sandbox: Sandbox, view: PodView) -> None:
        unlimited_s = self._latecomers.unlimited_s(sandbox.key, view.started_s)
        if unlimited_s:
            self._metrics.unshaped_seconds.inc(unlimited_s)
            self._events.tell(view, latecomers.notice(unlimited_s))

    async def _release(self, sandbox: Sandbox) -> None:
        shaper = await asyncio.shield(self._shaper)
        async with self._kernel:
            self._monitor.unwatch(sandbox.netns_path)
            self._heard.discard(sandbox.netns_path)
            try:
                await self._run(shaper.release, *sandbox.key)
            except ShapingError as error:
                log.warning("cannot take the shaping off a Pod that is gone", extra={"error": str(error)})
            self._applied.pop(sandbox.key, None)
            self._latecomers.forget(sandbox.key)
            self._failures.pop(sandbox.key, None)
            if not self._sandboxes.of(sandbox.pod.uid):
                self._last_good.pop(sandbox.pod.uid, None)

    def _failed(self, sandbox: Sandbox, view: PodView, error: ShapingError) -> None:
        """Tell once, try again with backoff."""
        count = self._failures.get(sandbox.key, 0)
        self._failures[sandbox.key] = count + 1
        self._metrics.errors.labels(kind=type(error).__name__).inc()
        if count == 0:
            self._events.tell(view, Notice(Reason.FAILED, f"this Pod is not limited as asked: {error}"))
        self._spawn(self._again(view.uid, RETRY_S[min(count, len(RETRY_S) - 1)]))

    async def _again(self, uid: str, delay_s: float) -> None:
        await self._sleep(delay_s)
        self.look_at(uid)

    async def _settle(self, uid: str) -> None:
        await self._sleep(SETTLE_S)
        self._settling.discard(uid)
        self.look_at(uid)

    async def _listen(self, netns_path: str) -> None:
        if netns_path in self._heard:
            return
        try:
            await self._run(self._monitor.watch, netns_path)
        except ShapingError as error:
            # The limit holds all the same; only changes made there by others go unheard.
            log.warning("cannot listen to a Pod's netns", extra={"netns": netns_path, "error": str(error)})
        else:
            self._heard.add(netns_path)

    def _intent_of(self, sandbox: Sandbox) -> Limits:
        view = self._views.get(sandbox.pod.uid, sandbox.pod)
        return intent(view, self._last_good.get(view.uid, Limits())).limits

    async def _in_kernel(self, call: Callable[..., T], *args: Any) -> T:
        async with self._kernel:
            return await self._run(call, *args)

    async def _run(self, call: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *args)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


def _limits_in(counted: PodCounters) -> Limits:
    rates = {direction.value: Quantity(held.bits_per_second) for direction, held in counted.directions.items()}
    return Limits(**rates)


def _sandbox(pod: PodSandbox) -> Sandbox:
    view = pods.from_runtime(
        pod.uid,
        pod.namespace,
        pod.name,
        labels=pod.labels,
        annotations=pod.annotations,
        netns_path=pod.netns_path,
    )
    return Sandbox(pod.id, view, pod.netns_path)
