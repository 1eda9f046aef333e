"""The loop that keeps the kernel as the Pods ask for it.

Two sources say what should be (the runtime's hooks, and the watch on this node's Pods), one says that something
changed in the kernel (netlink), and all three do the same: name a Pod to look at. Looking at a Pod is idempotent, and
one at a time, on the one thread that works on the kernel; a hook goes ahead of everything that waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor

from reconciler.background import Background
from reconciler.bypass import Sample
from reconciler.due import Due, Urgency
from reconciler.ears import Ears
from reconciler.events import Events
from reconciler.failures import Failures
from reconciler.kernel import netns
from reconciler.kernel.monitor import Monitor
from reconciler.kernel_work import KernelWork
from reconciler.known import Known, Wanted
from reconciler.loading import Loading
from reconciler.looking import Looking
from reconciler.metrics import Metrics
from reconciler.nri.messages import PodSandbox
from reconciler.pods import PodView
from reconciler.report import Notice
from reconciler.sandboxes import Key, Sandbox
from reconciler.settling import Settling
from reconciler.shaping import Shaper, ShapingError
from reconciler.upkeep import Upkeep

REPLAY_PATIENCE_S = 5.0
"""How long what the kernel holds waits for the runtime to tell whose it is, which it usually does within a second."""
LIST_PATIENCE_S = 30.0
"""How long Pods that ran before wait for the API server, which usually lists them within a second."""
NEXT_PATIENCE_S = 60.0
"""How long a Pod that is listed without a netns (or with one that is not to be seen), as all are when the node was
started again, may take to get another sandbox, and the API server to hear that no container of it runs."""

log = logging.getLogger(__name__)


class Controller:
    """Holds what is known of this node's Pods, and applies it."""

    def __init__(
        self,
        start: Callable[[Iterable[Key]], Shaper],
        *,
        prepare: Callable[[], None] = lambda: None,
        monitor: Monitor,
        events: Events,
        metrics: Metrics,
        executor: Executor,
        sleep: Callable[[float], Awaitable[None]],
        monotonic: Callable[[], float],
        now: Callable[[], float] = time.time,
        there_since_s: Callable[[str], float] = netns.there_since_s,
    ) -> None:
        """`start` gets the shaper to work for the sandboxes that it is given, `prepare` does what takes long of it."""
        self._prepare = prepare
        self._events, self._metrics = events, metrics
        self._sleep, self._monotonic, self._now = sleep, monotonic, now
        self._work = KernelWork(executor, monotonic)
        self._background = Background()
        self._loading = Loading(
            start,
            self._work,
            tell_node=self._tell_node_and_pods,
            errors=metrics.errors,
            sleep=sleep,
        )
        self._starting: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._awaiting_next: asyncio.Task[None] | None = None
        self._known = Known()
        self._sandboxes = self._known.sandboxes
        self._due = Due()
        self._failures = Failures(
            self._known,
            events=events,
            errors=metrics.errors,
            look_at=self.look_at,
            spawn=self._background.spawn,
            sleep=sleep,
        )
        self._settling = Settling(
            on_settled=lambda uid: self.look_at(uid, Urgency.CHANGED),
            on_all_settled=lambda: self._look_at_all(Urgency.PERHAPS),
            spawn=self._background.spawn,
            sleep=sleep,
            monotonic=monotonic,
        )
        self._ears = Ears(monitor, self._work.within)
        self._looking = Looking(
            self._known,
            loading=self._loading,
            work=self._work,
            failures=self._failures,
            ears=self._ears,
            events=events,
            metrics=metrics,
            now=now,
            there_since_s=there_since_s,
            look_at_all=self.on_any_changed,
        )
        self.upkeep = Upkeep(
            self._known,
            loading=self._loading,
            work=self._work,
            forget=self.forget,
            look_at=self.look_at,
            tell_again=self._tell_again,
            sleep=sleep,
        )

    async def prepare(self) -> None:
        """To be done before the runtime is connected to; whatever comes of it, `on_synchronize` starts all.

        So does time: a runtime that tells nothing, as while it stops a container for an hour, leaves Pods that are
        limited to the kernel and the API server, which say enough of them to go on.
        """
        await self._loading.prepare(self._prepare)
        self._background.spawn(self._wait_for_replay())

    # -- the container runtime ---------------------------------------------------------------------------------------

    async def on_synchronize(self, sandboxes: Sequence[PodSandbox]) -> None:
        """The runtime tells all its Pods, after every connect. All NRI calls of the node wait meanwhile: be quick."""
        self._known.replayed(map(Sandbox.told, sandboxes))
        log.info("synchronized with the container runtime", extra={"sandboxes": len(list(self._sandboxes))})
        if self._waiting is None and any(map(self._known.waits, self._sandboxes)):
            self._waiting = self._background.spawn(self._wait_for_list())
        if self._awaiting_next is not None:
            self._awaiting_next.cancel()
        if self._known.expects_next:
            self._awaiting_next = self._background.spawn(self._wait_for_next())
        if self._starting is None:
            self._starting = self._background.spawn(self._begin())
        else:
            self._look_at_all()
            # While nobody was connected, Pods may have gone without a word.
            self._background.spawn(self.upkeep.collect())

    async def on_run(self, pod: PodSandbox) -> None:
        """A sandbox has its network, and no container of it runs yet: limit it now."""
        began = self._monotonic()
        sandbox = Sandbox.told(pod)
        self._known.began(sandbox)
        if not sandbox.netns_path:
            self.look_at(sandbox.pod.uid)
            return
        if not await self._looking.look(sandbox) and sandbox.key not in self._known.latecomers:
            self._known.latecomers.found([sandbox.key], since_s=self._now())
        if self._known.intent(sandbox).limits:
            self._metrics.hook_seconds.observe(self._monotonic() - began)

    def on_late(self, pod: PodSandbox) -> None:
        """The runtime waits no longer for `on_run`, so containers start while it goes on."""
        if pod.netns_path:
            self._known.late(Sandbox.told(pod).key, self._now())

    async def on_stop(self, pod: PodSandbox) -> None:
        """The containers of a sandbox have ended; its network goes next."""
        told = Sandbox.told(pod)
        self._known.stopped(told)
        await self.forget(self._sandboxes.known_as(told))

    async def forget(self, sandbox_id: str) -> None:
        """Let go of a sandbox, if it is known."""
        sandbox = self._sandboxes.remove(sandbox_id)
        if sandbox is None:
            return
        if sandbox.netns_path:
            await self._release(sandbox)
        else:
            self._let_go(sandbox)

    async def on_remove(self, pod: PodSandbox) -> None:
        """A sandbox is gone; usually told by `on_stop` before."""
        self._sandboxes.removed(pod.id)
        await self.forget(self._sandboxes.known_as(Sandbox.told(pod)))

    # -- the API server ----------------------------------------------------------------------------------------------

    def on_pods(self, views: Iterable[PodView]) -> None:
        """The complete list of this node's Pods."""
        changed, gone = self._known.listed(views)
        for uid in gone:
            self._forget_events(uid)
        for uid in changed:
            self.look_at(uid)

    def on_pod_event(self, kind: str, view: PodView) -> None:
        """One Pod was ADDED, MODIFIED or DELETED."""
        if kind == "DELETED":
            self._known.deleted(view)
            self._forget_events(view.uid)
        elif self._known.seen(view):
            self.look_at(view.uid)

    # -- the kernel --------------------------------------------------------------------------------------------------

    def on_netns_changed(self, netns_paths: Iterable[str]) -> None:
        """Links, qdiscs or filters changed there: by us, by the runtime, or by somebody else."""
        for path in netns_paths:
            sandbox = self._sandboxes.at(path)
            if sandbox is not None:
                self._settling.changed(sandbox.pod.uid)

    def on_any_changed(self) -> None:
        """Something may have changed in any netns: look at everything."""
        self._settling.changed_anywhere()

    def look_at(self, uid: str, urgency: Urgency = Urgency.ASKED) -> None:
        """Have a Pod looked at soon; asking twice costs one look."""
        self._due.add(uid, urgency)

    async def run(self) -> None:
        """Look at what was named, one Pod after the other, for ever.

        Raises what ends any work in the background: what that was about would never be done, and nobody told.
        """
        self._background.spawn(self._look_for_ever())
        try:
            await self._background.failure()
        finally:
            await self._background.end()  # what it works with is about to be closed

    def limited(self) -> list[Sandbox]:
        """The sandboxes that have limits now, or would but for what is in the way."""
        return self._known.limited()

    def view(self, sandbox: Sandbox) -> PodView:
        """A Pod as the API server tells of it, or as it is known without."""
        return self._known.view(sandbox)

    async def visit(self, sandbox: Sandbox, *, thorough: bool) -> Sample | None:
        """What a Pod has sent past its egress limit so far, None where that cannot be told. Thorough: look at it."""
        if thorough:
            await self._looking.look(sandbox)
        applied = self._known.applied(sandbox)
        # What was adopted has no interfaces until the first look: what those have sent would seem to have gone past.
        if applied.limits.egress is None or applied.in_conflict or not applied.interfaces:
            return None
        try:
            return await self._work.do((await self._loading.shaper()).sample, *sandbox.key, applied.interfaces)
        except ShapingError as error:
            log.info("cannot read what a Pod has sent", extra={"pod": str(sandbox.pod), "error": str(error)})
            return None

    @property
    def ready(self) -> bool:
        """Whether the program is loaded, and so Pods can be limited."""
        return self._loading.done

    @property
    def trouble(self) -> str | None:
        """Why Pods cannot be limited, as far as it is known."""
        return self._work.trouble or self._loading.trouble

    def wanted(self) -> Wanted:
        """How the sandboxes fare that ask for a limit."""
        return self._known.wanted()

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Adopt what the kernel holds, or load the program; then look at every Pod."""
        shaper, found = await self._loading.load(lambda: [sandbox.key for sandbox in self._sandboxes])
        log.info("the BPF program is in force", extra={"adopted": shaper.adopted})
        for key, held in found.items():
            self._known.adopt(key, held.wanted, held.in_force)
        self._loading.finish(shaper)
        await self.upkeep.collect()  # who needs a slot has those of Pods that ended meanwhile
        self._look_at_all()

    async def _wait_for_replay(self) -> None:
        await self._sleep(REPLAY_PATIENCE_S)
        if self._starting is None:
            self._starting = self._background.spawn(self._begin())

    async def _wait_for_list(self) -> None:
        await self._sleep(LIST_PATIENCE_S)
        for uid in self._known.wait_no_longer():
            self.look_at(uid)

    async def _wait_for_next(self) -> None:
        await self._sleep(NEXT_PATIENCE_S)
        self._known.expect_no_next()
        for sandbox in (*self._known.lost(), *filter(self._known.is_out_of_sight, self._sandboxes)):
            self.look_at(sandbox.pod.uid)

    async def _look_for_ever(self) -> None:
        while True:
            uid = await self._due.next()
            for sandbox in self._sandboxes.of(uid):
                await self._looking.look(sandbox)
            if self._loading.done or self._loading.trouble:  # what the kernel holds may tell more
                self._failures.tell_lost(uid, self._loading.trouble)

    def _tell_node_and_pods(self, notice: Notice) -> None:
        self._events.tell_node(notice)
        self._look_at_all()  # each is told what comes of it for itself

    def _tell_again(self) -> None:
        self._loading.tell_again()
        self._failures.tell_again()

    async def _release(self, sandbox: Sandbox) -> None:
        if self._loading.done:
            shaper = await self._loading.shaper()
            async with self._work.turn():
                self._ears.ignore(sandbox.netns_path)
                try:
                    await self._work.within(shaper.release, *sandbox.key)
                except ShapingError as error:
                    log.warning("cannot take the shaping off a Pod that is gone", extra={"error": str(error)})
                self._let_go(sandbox)
        else:  # the runtime waits for this; what the kernel may hold for it is freed by the collector
            self._let_go(sandbox)

    def _let_go(self, sandbox: Sandbox) -> None:
        self._known.forget(sandbox)
        if not self._sandboxes.of(sandbox.pod.uid):
            self._settling.forget(sandbox.pod.uid)
            self._forget_events(sandbox.pod.uid)

    def _forget_events(self, uid: str) -> None:
        if not self._known.has(uid):
            self._events.forget(uid)

    def _look_at_all(self, urgency: Urgency = Urgency.ASKED) -> None:
        for sandbox in (*self._sandboxes, *self._known.lost()):
            self.look_at(sandbox.pod.uid, urgency)
