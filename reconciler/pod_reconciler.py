"""Reconciles one Pod: compares the desired limits with what is in force, applies them, and records events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from reconciler import ran_unlimited
from reconciler.desired import DesiredLimits
from reconciler.events import Events
from reconciler.failures import Failures
from reconciler.kernel.errors import NetnsGoneError, ShapingError, defect
from reconciler.kernel_executor import KernelExecutor
from reconciler.metrics import Metrics
from reconciler.netns_subscriptions import NetnsSubscriptions
from reconciler.node_state import NodeState
from reconciler.pods import PodView
from reconciler.report import Notice, Reason, applied, lost, lost_notices, report
from reconciler.sandboxes import Sandbox
from reconciler.shaper_loader import ShaperLoader
from reconciler.shaping import Shaper

logger = logging.getLogger(__name__)


class PodReconciler:
    """Reconciles one sandbox at a time; idempotent."""

    def __init__(
        self,
        state: NodeState,
        *,
        loader: ShaperLoader,
        kernel: KernelExecutor,
        failures: Failures,
        subscriptions: NetnsSubscriptions,
        events: Events,
        metrics: Metrics,
        epoch_s: Callable[[], float],
        netns_created_s: Callable[[str], float],
        on_any_changed: Callable[[], None],
    ) -> None:
        """`on_any_changed` has all Pods reconciled soon, after those that were requested."""
        self._state = state
        self._loader = loader
        self._kernel = kernel
        self._failures = failures
        self._subscriptions = subscriptions
        self._events = events
        self._metrics = metrics
        self._epoch_s = epoch_s
        self._netns_created_s = netns_created_s
        self._on_any_changed = on_any_changed

    async def reconcile(self, sandbox: Sandbox) -> bool:
        """Compare what one sandbox should have with what it has, and apply it. False if that failed."""
        try:
            return await self._reconcile(sandbox)
        except Exception as error:  # a defect triggered by one Pod must not affect the others
            logger.exception("a defect: a Pod cannot be reconciled", extra={"pod": str(sandbox.pod)})
            self._failures.on_failed(sandbox, defect(error))
            return False

    async def _reconcile(self, sandbox: Sandbox) -> bool:
        if self._state.awaits_api_server(sandbox):
            return True
        if not self._loader.done:  # once it is done, every Pod is reconciled
            if not self._state.desired(sandbox).limits:
                return True
            await self._loader.tried()
            if sandbox not in self._state.sandboxes:
                return True
            if self._loader.trouble:
                self._failures.report_unloaded(sandbox, self._loader.trouble)
                return False
        return await self._shape(await self._loader.shaper(), sandbox)

    async def _shape(self, shaper: Shaper, sandbox: Sandbox) -> bool:
        async with self._kernel.lock():
            if sandbox not in self._state.sandboxes:  # forgotten while this waited
                return True
            view, wanted, before = self._state.view(sandbox), self._state.desired(sandbox), self._state.applied(sandbox)
            self._state.on_reconciling(sandbox, wanted)
            if not wanted.limits and not wanted.notices and self._state.is_settled(sandbox):
                self._state.ran_unlimited.forget(sandbox.key)
                return True
            # First, as a change between the two would not be reported.
            is_new = await self._subscriptions.subscribe(sandbox.netns_path)
            try:
                outcome = await self._kernel.run_locked(shaper.shape, view.uid, sandbox.netns_path, wanted.limits)
            except ShapingError as error:
                if is_new:  # else what the kernel refuses would be tried again for its own notifications
                    self._subscriptions.unsubscribe(sandbox.netns_path)
                return self._failed(sandbox, wanted, error)
        problems = tuple(Notice(problem.kind, problem.message) for problem in outcome.problems)
        # On a network other than ipvlan nothing is in force, and a Pod that was never admitted needs no notice.
        left = lost(before, outcome.others)
        without = lost_notices(left) if wanted.limits and outcome.interfaces else ()
        notices = (*(wanted.notices if outcome.interfaces else ()), *problems, *without)
        after = replace(
            applied(wanted.limits, outcome.interfaces, outcome.missing, notices),
            modes=outcome.modes,
            indexes=outcome.indexes | left.keys(),
        )
        if after.has_other_modes(before):  # the mode is the NIC's, for all its Pods; l3 to l3s sends no notification
            self._on_any_changed()
        is_mended = self._state.is_failing(sandbox) and outcome.lack is None
        self._state.on_succeeded(
            sandbox,
            wanted.limits,
            after,
            now_s=self._epoch_s(),
            netns_created_s=self._netns_created_s(sandbox.netns_path),
            fails=outcome.lack is not None,
        )
        self._record_events(sandbox, view, report(before, after, outcome.steps, is_mended=is_mended))
        if outcome.slot_freed:
            self._failures.on_slot_freed()
        if outcome.lack is None:
            self._failures.on_succeeded(sandbox)
            if not self._subscriptions.has(sandbox.netns_path):
                self._failures.try_again(sandbox)  # nothing else would: the resync visits limited Pods alone
        else:
            self._failures.on_failed(sandbox, outcome.lack)
        return outcome.lack is None

    def _failed(self, sandbox: Sandbox, wanted: DesiredLimits, error: ShapingError) -> bool:
        """Shaping failed: returns as `reconcile`. A sandbox that asks for nothing, or has ended, lacks nothing."""
        is_gone = isinstance(error, NetnsGoneError)
        if is_gone:
            self._state.on_netns_looked_up(sandbox, is_there=False)
            matters = bool(wanted.limits) and self._state.is_netns_unseen(sandbox)
            error = NetnsGoneError(f"the reconciler does not see its network namespace: {error}")
        else:
            matters = bool(wanted.limits) or not self._state.is_settled(sandbox)
        if matters:
            self._failures.on_failed(sandbox, error)
            return False
        logger.info("a Pod is gone, or asks for no limit", extra={"pod": str(sandbox.pod), "error": str(error)})
        if wanted.notices and not is_gone:  # its notices are still to be recorded
            self._failures.try_again(sandbox)
        return True

    def report_ran_unlimited(self, sandbox: Sandbox) -> None:
        """Record that it ran without its limits, if so, once it is known when it started."""
        self._record_events(sandbox, self._state.view(sandbox), ())

    def _record_events(self, sandbox: Sandbox, view: PodView, notices: Iterable[Notice]) -> None:
        # The API server has a static Pod under another uid: it is assumed to have started with its sandbox.
        unlimited_s = self._state.ran_unlimited.unlimited_s(sandbox.key, 0.0 if view.static else view.started_s)
        if unlimited_s:
            self._metrics.unshaped_seconds.inc(unlimited_s)
            self._events.record(view, ran_unlimited.notice(unlimited_s))
        for notice in notices:
            if notice.reason == Reason.REPAIRED:
                self._metrics.repairs.inc()
            self._events.record(view, notice)
