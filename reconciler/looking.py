"""Looking at a Pod: what it should have is compared with what it has, made so, and told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from reconciler import latecomers
from reconciler.ears import Ears
from reconciler.events import Events
from reconciler.failures import Failures
from reconciler.intent import Intent
from reconciler.kernel_work import KernelWork
from reconciler.known import Known
from reconciler.loading import Loading
from reconciler.metrics import Metrics
from reconciler.pods import PodView
from reconciler.report import Notice, Reason, applied, report
from reconciler.sandboxes import Sandbox
from reconciler.shaping import NetnsGoneError, Shaper, ShapingError

log = logging.getLogger(__name__)


class Looking:
    """Looks at one sandbox at a time; doing it again does nothing."""

    def __init__(
        self,
        known: Known,
        *,
        loading: Loading,
        work: KernelWork,
        failures: Failures,
        ears: Ears,
        events: Events,
        metrics: Metrics,
        now: Callable[[], float],
        there_since_s: Callable[[str], float],
        look_at_all: Callable[[], None],
    ) -> None:
        """`look_at_all` has all Pods looked at soon, after whatever is asked for."""
        self._known, self._loading, self._work = known, loading, work
        self._failures, self._ears, self._events, self._metrics = failures, ears, events, metrics
        self._now, self._there_since_s, self._look_at_all = now, there_since_s, look_at_all

    async def look(self, sandbox: Sandbox) -> bool:
        """Compare what one sandbox should have with what it has, and make it so. False if it has not what it should."""
        try:
            return await self._make_sure(sandbox)
        except Exception as error:  # a defect that one Pod brings out must cost the others nothing
            log.exception("a defect: a Pod cannot be looked at", extra={"pod": str(sandbox.pod)})
            self._failures.failed(sandbox, ShapingError(f"a defect of the reconciler, please report it: {error!r}"))
            return False

    async def _make_sure(self, sandbox: Sandbox) -> bool:
        if self._known.waits(sandbox):
            return True
        if not self._loading.done:  # every Pod is looked at when it is
            if not self._known.intent(sandbox).limits:
                return True
            await self._loading.tried()
            if sandbox not in self._known.sandboxes:
                return True
            if self._loading.trouble:
                self._failures.tell_once(sandbox, self._loading.trouble)
                return False
        return await self._make_so(await self._loading.shaper(), sandbox)

    async def _make_so(self, shaper: Shaper, sandbox: Sandbox) -> bool:
        async with self._work.turn():
            if sandbox not in self._known.sandboxes:  # let go while this waited
                return True
            view, wanted, before = self._known.view(sandbox), self._known.intent(sandbox), self._known.applied(sandbox)
            if not wanted.limits and not wanted.notices and self._known.is_settled(sandbox):
                self._known.latecomers.forget(sandbox.key)
                return True
            try:
                outcome = await self._work.within(shaper.shape, view.uid, sandbox.netns_path, wanted.limits)
            except ShapingError as error:
                return self._failed(sandbox, wanted, error)
            await self._ears.listen(sandbox.netns_path)
        problems = tuple(Notice(problem.kind, problem.message) for problem in outcome.problems)
        # On another network than ipvlan nothing is in force, and a Pod that was never admitted is nobody's concern.
        notices = (*(wanted.notices if outcome.interfaces else ()), *problems)
        after = replace(applied(wanted.limits, outcome.interfaces, outcome.missing, notices), modes=outcome.modes)
        if after.has_other_modes(before):  # so have all Pods of the same NIC, and from l3 to l3s nothing tells of it
            self._look_at_all()
        self._known.succeeded(
            sandbox,
            wanted.limits,
            after,
            now_s=self._now(),
            there_since_s=self._there_since_s(sandbox.netns_path),
            fails=outcome.lack is not None,
        )
        self._tell(sandbox, view, report(before, after, [str(step) for step in outcome.steps]))
        if outcome.lack is not None:
            self._failures.failed(sandbox, outcome.lack)
        return outcome.lack is None

    def _failed(self, sandbox: Sandbox, wanted: Intent, error: ShapingError) -> bool:
        """The kernel did not do it: gives what `look` does. Whoever asks for nothing, or has ended, misses nothing."""
        is_gone = isinstance(error, NetnsGoneError)
        if is_gone:
            self._known.looked_for(sandbox, is_there=False)
            matters = bool(wanted.limits) and self._known.is_out_of_sight(sandbox)
            error = NetnsGoneError(f"the reconciler does not see its network namespace: {error}")
        else:
            matters = bool(wanted.limits) or not self._known.is_settled(sandbox)
        if matters:
            self._failures.failed(sandbox, error)
            return False
        log.info("a Pod is gone, or asks for no limit", extra={"pod": str(sandbox.pod), "error": str(error)})
        if wanted.notices and not is_gone:  # it is still to be told why
            self._failures.try_again(sandbox)
        return True

    def _tell(self, sandbox: Sandbox, view: PodView, notices: Iterable[Notice]) -> None:
        # The API server tells of a static Pod under another uid: it is taken to have started with its sandbox.
        unlimited_s = self._known.latecomers.unlimited_s(sandbox.key, 0.0 if view.static else view.started_s)
        if unlimited_s:
            self._metrics.unshaped_seconds.inc(unlimited_s)
            self._events.tell(view, latecomers.notice(unlimited_s))
        for notice in notices:
            if notice.reason == Reason.REPAIRED:
                self._metrics.repairs.inc()
            self._events.tell(view, notice)
