"""The controller of this node's Pods: a reconcile loop that keeps the kernel's state as the Pods ask for.

Two sources give the desired state (the runtime's hooks, and the watch on this node's Pods), one reports changes in the
kernel (netlink), and all three do the same: enqueue a Pod. Reconciling a Pod is idempotent. Pods are reconciled one at
a time, on the one thread that works on the kernel; a hook goes ahead of the queue.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor

from reconciler.background_tasks import BackgroundTasks
from reconciler.backoff import ALL_MAX_DELAY_S, MAX_DELAY_S
from reconciler.debounce import Debouncer
from reconciler.events import Events
from reconciler.failures import Failures
from reconciler.housekeeping import Housekeeping
from reconciler.kernel import netns
from reconciler.kernel.errors import ShapingError
from reconciler.kernel.monitor import Monitor
from reconciler.kernel_executor import KernelExecutor
from reconciler.metrics import Metrics
from reconciler.netns_subscriptions import NetnsSubscriptions
from reconciler.node_state import NodeState, PodCounts
from reconciler.nri.messages import PodSandbox
from reconciler.pod_reconciler import PodReconciler
from reconciler.pods import PodView
from reconciler.report import Notice
from reconciler.resync import Resync
from reconciler.sandboxes import Key, Sandbox
from reconciler.shaper_loader import ShaperLoader
from reconciler.shaping import Shaper
from reconciler.workqueue import Priority, WorkQueue

SYNCHRONIZE_TIMEOUT_S = 5.0
"""How long adopting the kernel's state waits for the runtime's list of Pods, which usually comes within a second."""
LIST_TIMEOUT_S = 30.0
"""How long Pods that ran before wait for the API server, which usually lists them within a second."""
NEW_SANDBOX_TIMEOUT_S = 60.0
"""For a Pod listed without a netns (or with one that is not visible), as all are after a reboot of the node: how long
it may take to get another sandbox, and the API server to learn that none of its containers runs."""

logger = logging.getLogger(__name__)


class Controller:
    """Holds the state of this node's Pods, and enqueues Pods to reconcile."""

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
        epoch_s: Callable[[], float] = time.time,
        netns_created_s: Callable[[str], float] = netns.created_s,
    ) -> None:
        """`start` starts the shaper for the sandboxes that it is given, `prepare` does the slow part beforehand."""
        self._prepare = prepare
        self._events = events
        self._metrics = metrics
        self._sleep = sleep
        self._monotonic = monotonic
        self._epoch_s = epoch_s
        self._kernel = KernelExecutor(executor, monotonic)
        self._background = BackgroundTasks()
        self._loader = ShaperLoader(
            start,
            self._kernel,
            record_node=self._record_node_and_enqueue_all,
            errors=metrics.errors,
            sleep=sleep,
        )
        self._starting: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._awaiting_new_sandboxes: asyncio.Task[None] | None = None
        self._state = NodeState()
        self._sandboxes = self._state.sandboxes
        self._queue = WorkQueue()
        self._failures = Failures(
            self._state,
            events=events,
            errors=metrics.errors,
            enqueue=self.enqueue,
            spawn=self._background.spawn,
            sleep=sleep,
        )
        debouncer = functools.partial(Debouncer, spawn=self._background.spawn, sleep=sleep, monotonic=monotonic)
        self._debouncer = debouncer(lambda uid: self.enqueue(uid, Priority.DRIFT), MAX_DELAY_S)
        self._debouncer_of_all = debouncer(lambda _: self._enqueue_all(Priority.RESYNC), ALL_MAX_DELAY_S)
        self._subscriptions = NetnsSubscriptions(monitor, self._kernel.run_locked)
        self._pod_reconciler = PodReconciler(
            self._state,
            loader=self._loader,
            kernel=self._kernel,
            failures=self._failures,
            subscriptions=self._subscriptions,
            events=events,
            metrics=metrics,
            epoch_s=epoch_s,
            netns_created_s=netns_created_s,
            on_any_changed=self.on_any_changed,
        )
        self.housekeeping = Housekeeping(
            self._state,
            loader=self._loader,
            kernel=self._kernel,
            forget=self.forget,
            enqueue=self.enqueue,
            on_slot_freed=self._failures.on_slot_freed,
            record_again=self._record_again,
            sleep=sleep,
        )
        self.resync = Resync(
            self._state,
            loader=self._loader,
            kernel=self._kernel,
            reconcile=self._pod_reconciler.reconcile,
            events=events,
            sleep=sleep,
        )

    async def prepare(self) -> None:
        """Call it before connecting to the runtime; whether it succeeds or not, `on_synchronize` starts shaping.

        So does a timeout: while the runtime is silent (for an hour, say, as it stops a container), the kernel and the
        API server say enough of the limited Pods to go on.
        """
        await self._loader.prepare(self._prepare)
        self._background.spawn(self._wait_for_synchronize())

    # -- the container runtime ---------------------------------------------------------------------------------------

    async def on_synchronize(self, sandboxes: Sequence[PodSandbox]) -> None:
        """The runtime lists all its Pods, after every connect. All NRI calls of the node wait meanwhile: be quick."""
        self._state.on_synchronized(map(Sandbox.from_nri, sandboxes))
        logger.info("synchronized with the container runtime", extra={"sandboxes": len(list(self._sandboxes))})
        if self._waiting is None and any(map(self._state.awaits_api_server, self._sandboxes)):
            self._waiting = self._background.spawn(self._wait_for_list())
        if self._awaiting_new_sandboxes is not None:
            self._awaiting_new_sandboxes.cancel()
        if self._state.expects_new_sandbox:
            self._awaiting_new_sandboxes = self._background.spawn(self._wait_for_new_sandboxes())
        if self._starting is None:
            self._starting = self._background.spawn(self._start_shaping())
        else:
            self._enqueue_all()
            # While the runtime was not connected, Pods may have gone without a notification.
            self._background.spawn(self.housekeeping.collect_garbage())

    async def on_run(self, pod: PodSandbox) -> None:
        """A sandbox has its network, and none of its containers runs yet: limit it now."""
        began = self._monotonic()
        sandbox = Sandbox.from_nri(pod)
        self._state.on_started(sandbox)
        if not sandbox.netns_path:
            self.enqueue(sandbox.pod.uid)
            return
        if not await self._pod_reconciler.reconcile(sandbox) and sandbox.key not in self._state.ran_unlimited:
            self._state.ran_unlimited.add([sandbox.key], since_s=self._epoch_s())
        if self._state.desired(sandbox).limits:
            self._metrics.hook_seconds.observe(self._monotonic() - began)

    def on_hook_timeout(self, pod: PodSandbox) -> None:
        """The runtime no longer waits for `on_run`: containers start while it is still running."""
        if pod.netns_path:
            self._state.on_hook_timeout(Sandbox.from_nri(pod).key, self._epoch_s())

    async def on_stop(self, pod: PodSandbox) -> None:
        """The containers of a sandbox have ended; its network is removed next."""
        told = Sandbox.from_nri(pod)
        self._state.on_stopped(told)
        await self.forget(self._sandboxes.id_of(told))

    async def forget(self, sandbox_id: str) -> None:
        """Forget a sandbox and remove its limits, if it is known."""
        sandbox = self._sandboxes.remove(sandbox_id)
        if sandbox is None:
            return
        if sandbox.netns_path:
            await self._release(sandbox)
        else:
            self._forget_sandbox(sandbox)

    async def on_remove(self, pod: PodSandbox) -> None:
        """A sandbox is gone; `on_stop` usually came before."""
        self._sandboxes.on_removed(pod.id)
        await self.forget(self._sandboxes.id_of(Sandbox.from_nri(pod)))

    # -- the API server ----------------------------------------------------------------------------------------------

    def on_pods(self, views: Iterable[PodView]) -> None:
        """The complete list of this node's Pods."""
        changed, gone = self._state.on_listed(views)
        for uid in gone:
            self._forget_events(uid)
        for uid in changed:
            self._pod_changed(uid)

    def on_pod_event(self, kind: str, view: PodView) -> None:
        """One Pod was ADDED, MODIFIED or DELETED."""
        if kind == "DELETED":
            self._state.on_deleted(view)
            self._forget_events(view.uid)
        elif self._state.on_seen(view):
            self._pod_changed(view.uid)

    # -- the kernel --------------------------------------------------------------------------------------------------

    def on_netns_changed(self, netns_paths: Iterable[str]) -> None:
        """Links, qdiscs or filters changed in these netns: by us, by the runtime, or by others."""
        for path in netns_paths:
            sandbox = self._sandboxes.at(path)
            if sandbox is not None:
                self._debouncer.changed(sandbox.pod.uid)

    def on_any_changed(self) -> None:
        """Something may have changed in any netns: reconcile everything."""
        self._debouncer_of_all.changed("")

    def enqueue(self, uid: str, priority: Priority = Priority.REQUESTED) -> None:
        """Have a Pod reconciled soon; enqueueing it twice costs one reconcile."""
        self._queue.add(uid, priority)

    async def run(self) -> None:
        """Reconcile the enqueued Pods, one after the other, for ever.

        Raises the error of any background task that fails: else its work would never be done, and no one would know.
        """
        self._background.spawn(self._run_worker())
        try:
            await self._background.failure()
        finally:
            await self._background.end()  # the resources it uses are about to be closed

    @property
    def ready(self) -> bool:
        """Whether the program is loaded, and so Pods can be limited."""
        return self._loader.done

    @property
    def trouble(self) -> str | None:
        """Why Pods cannot be limited, as far as known."""
        return self._kernel.trouble or self._loader.trouble

    def pod_counts(self) -> PodCounts:
        """The sandboxes that ask for a limit, by state."""
        return self._state.pod_counts()

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _start_shaping(self) -> None:
        """Adopt what the kernel holds, or load the program; then reconcile every Pod."""
        shaper, found = await self._loader.load(lambda: [sandbox.key for sandbox in self._sandboxes])
        logger.info("the BPF program is in force", extra={"adopted": shaper.adopted})
        for key, held in found.items():
            self._state.adopt(key, held.wanted, held.in_force)
        self._loader.finish(shaper)
        await self.housekeeping.collect_garbage()  # slots of Pods that ended meanwhile are free for others
        self._enqueue_all()

    async def _wait_for_synchronize(self) -> None:
        await self._sleep(SYNCHRONIZE_TIMEOUT_S)
        if self._starting is None:
            self._starting = self._background.spawn(self._start_shaping())

    async def _wait_for_list(self) -> None:
        await self._sleep(LIST_TIMEOUT_S)
        for uid in self._state.stop_awaiting_api_server():
            self.enqueue(uid)

    async def _wait_for_new_sandboxes(self) -> None:
        await self._sleep(NEW_SANDBOX_TIMEOUT_S)
        self._state.stop_expecting_new_sandboxes()
        for sandbox in (*self._state.unlocated(), *filter(self._state.is_netns_unseen, self._sandboxes)):
            self.enqueue(sandbox.pod.uid)

    async def _run_worker(self) -> None:
        while True:
            uid = await self._queue.get()
            for sandbox in self._sandboxes.of(uid):
                await self._pod_reconciler.reconcile(sandbox)
            if self._loader.done or self._loader.trouble:  # before that, the kernel's state may still show the netns
                self._failures.report_unlocated(uid, self._loader.trouble)

    def _record_node_and_enqueue_all(self, notice: Notice) -> None:
        self._events.record_node(notice)
        self._enqueue_all()  # each Pod gets its own event

    def _record_again(self) -> None:
        self._loader.record_again()
        self._failures.record_again()

    async def _release(self, sandbox: Sandbox) -> None:
        if self._loader.done:
            shaper = await self._loader.shaper()
            async with self._kernel.lock():
                self._subscriptions.unsubscribe(sandbox.netns_path)
                try:
                    if await self._kernel.run_locked(shaper.release, *sandbox.key):
                        self._failures.on_slot_freed()
                except ShapingError as error:
                    logger.warning(
                        "cannot take the shaping off a Pod that is gone",
                        extra={"pod": str(sandbox.pod), "netns": sandbox.netns_path, "error": str(error)},
                    )
                self._forget_sandbox(sandbox)
        else:  # the runtime waits for this; the garbage collector frees what the kernel may hold for it
            self._forget_sandbox(sandbox)

    def _forget_sandbox(self, sandbox: Sandbox) -> None:
        self._state.forget(sandbox)
        if not self._sandboxes.of(sandbox.pod.uid):
            self._debouncer.forget(sandbox.pod.uid)
            self._forget_events(sandbox.pod.uid)

    def _forget_events(self, uid: str) -> None:
        if not self._state.has(uid):
            self._events.forget(uid)

    def _enqueue_all(self, priority: Priority = Priority.REQUESTED) -> None:
        for sandbox in (*self._sandboxes, *self._state.unlocated()):
            self.enqueue(sandbox.pod.uid, max(priority, self._urgency(sandbox)))

    def _pod_changed(self, uid: str) -> None:
        """The API server reports another state of a Pod. Most often a container of it started or ended."""
        sandboxes = self._sandboxes.of(uid)
        if sandboxes and all(map(self._state.is_up_to_date, sandboxes)):
            for sandbox in sandboxes:
                self._pod_reconciler.report_ran_unlimited(sandbox)
        elif self._loader.done or self._loader.trouble:  # before that, no Pod can be limited; then all are enqueued
            self.enqueue(uid, min(map(self._urgency, sandboxes), default=Priority.REQUESTED))

    def _urgency(self, sandbox: Sandbox) -> Priority:
        """After a start, Pods that run without their limits are not to wait behind all those that have them."""
        return Priority.DRIFT if self._state.has_its_limits(sandbox) else Priority.REQUESTED
