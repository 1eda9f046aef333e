"""What is done for all Pods together, now and then: limits read back, slots freed, counters read."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable

from reconciler.due import Urgency
from reconciler.kernel_work import KernelWork
from reconciler.known import Known
from reconciler.loading import Loading
from reconciler.pods import PodView
from reconciler.shaping import PodCounters, ShapingError

AUDIT_S = 1.5
COLLECT_S = 30.0
ROLL_CALL_S = 60.0
"""Who is missing is told after one to two of these: by then the API server has heard of a Pod that has ended."""
TELL_AGAIN_CALLS = 50
"""At one call in so many what still stands is told again: the API server forgets events after an hour (--event-ttl)."""
COUNTED_AT_ONCE = 32
COUNTED_WITHIN_S = 5.0
"""Half of the time that Prometheus waits for a scrape."""

log = logging.getLogger(__name__)


class Upkeep:
    """Works on what the controller holds.

    `forget` lets go of a sandbox by its id, `look_at` has a Pod looked at, `tell_again` tells what still stands.
    """

    def __init__(
        self,
        known: Known,
        *,
        loading: Loading,
        work: KernelWork,
        forget: Callable[[str], Awaitable[None]],
        look_at: Callable[[str, Urgency], None],
        tell_again: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._known, self._sandboxes, self._loading, self._work = known, known.sandboxes, loading, work
        self._forget, self._look_at, self._tell_again, self._sleep = forget, look_at, tell_again, sleep

    async def run_collector(self) -> None:
        """Free, now and then, what Pods that vanished without a word have left.

        A runtime that was started again tells neither the stop nor the removal of a sandbox that is older.
        """
        while True:
            await self._sleep(COLLECT_S)
            await self.collect()

    async def run_roll_calls(self) -> None:
        """Look, now and then, for Pods that run and that the runtime has not named; tell again what still stands."""
        for calls in itertools.count(1):
            await self._sleep(ROLL_CALL_S)
            self.call_the_roll()
            if calls % TELL_AGAIN_CALLS == 0:
                self._tell_again()

    async def run_audits(self) -> None:
        """Read the limits back for ever: one system call for all Pods."""
        while True:
            await self._sleep(AUDIT_S)
            await self.audit()

    async def collect(self) -> None:
        """Let go of the sandboxes whose netns is gone, and free the slots that are nobody's."""
        shaper = await self._loading.shaper()
        live = {sandbox.key for sandbox in self._sandboxes}
        try:
            vanished = set(await self._work.do(shaper.vanished, live))
            for sandbox in self._sandboxes:
                if sandbox.key in live:
                    self._known.looked_for(sandbox, is_there=sandbox.key not in vanished)
            for sandbox in self._sandboxes:
                if sandbox.key in vanished and self._known.is_gone(sandbox):
                    await self._forget(sandbox.id)
            freed = await self._work.do(shaper.collect, live)
        except ShapingError as error:
            log.warning("cannot tell which Pods are gone", extra={"error": str(error)})
            return
        if freed:
            log.info("freed the slots of Pods that are gone", extra={"slots": freed})

    def call_the_roll(self) -> None:
        """Have those looked at that are missing: they are told."""
        for uid in self._known.call_the_roll():
            self._look_at(uid, Urgency.PERHAPS)

    async def audit(self) -> None:
        """See that the limits map holds what was written, and have the Pods looked at where it does not."""
        shaper = await self._loading.shaper()
        try:
            altered = await self._work.here(shaper.audit)  # a tenth of a millisecond: to hand it over costs more
        except ShapingError as error:
            log.warning("the limits were not checked", extra={"error": str(error)})
            return
        for uid in altered:
            self._look_at(uid, Urgency.CHANGED)

    async def counters(self) -> list[tuple[PodView, PodCounters]]:
        """What the kernel counted, with the Pods' names, for the metrics.

        Nothing before the program is loaded, nor while the kernel does not answer: that hides no other figure.
        """
        if not self._loading.done:
            return []
        try:
            async with asyncio.timeout(COUNTED_WITHIN_S):
                return await self._counted()
        except TimeoutError:
            return []

    async def _counted(self) -> list[tuple[PodView, PodCounters]]:
        known = {sandbox.key: sandbox for sandbox in self._sandboxes}
        shaper, counted = await self._loading.shaper(), list[PodCounters]()
        tenants = await self._work.do(shaper.tenants)
        for start in range(0, len(tenants), COUNTED_AT_ONCE):  # a Pod that starts meanwhile waits for one of them
            try:
                counted += await self._work.do(shaper.counters, tenants[start : start + COUNTED_AT_ONCE])
            except ShapingError as error:  # the scrape has all other figures, and the next one may have these
                log.warning("some Pods were not counted", extra={"error": str(error)})
        of_pods = [(known.get((each.pod_uid, each.netns_path or "")), each) for each in counted]
        return [
            (held.pod, each.holding(self._known.applied(held).limits)) for held, each in of_pods if held is not None
        ]
