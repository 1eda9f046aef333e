"""Periodic work for all Pods together: garbage collection of slots, audit of the limits map, reading of counters."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable

from reconciler.counters import PodCounters
from reconciler.kernel.errors import ShapingError
from reconciler.kernel_executor import KernelExecutor
from reconciler.node_state import NodeState
from reconciler.pods import PodView
from reconciler.sandboxes import Key
from reconciler.shaper_loader import ShaperLoader
from reconciler.workqueue import Priority

AUDIT_S = 1.5
GARBAGE_COLLECTION_S = 30.0
UNREPORTED_CHECK_S = 60.0
"""A missing Pod is reported after one to two of these: by then the API server knows if the Pod has ended."""
RECORD_AGAIN_CHECKS = 50
"""Once in so many checks, events that still hold are recorded again: the API server forgets them after an hour
(--event-ttl)."""
COUNTERS_BATCH = 32
COUNTERS_TIMEOUT_S = 5.0
"""Half of the time that Prometheus waits for a scrape."""

logger = logging.getLogger(__name__)


class Housekeeping:
    """Works on the controller's state.

    `forget` forgets a sandbox by its id, `enqueue` has a Pod reconciled, `on_slot_freed` those that wait for a slot;
    `record_again` records what still holds.
    """

    def __init__(
        self,
        state: NodeState,
        *,
        loader: ShaperLoader,
        kernel: KernelExecutor,
        forget: Callable[[str], Awaitable[None]],
        enqueue: Callable[[str, Priority], None],
        on_slot_freed: Callable[[], None],
        record_again: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._state = state
        self._sandboxes = state.sandboxes
        self._loader = loader
        self._kernel = kernel
        self._forget = forget
        self._enqueue = enqueue
        self._on_slot_freed = on_slot_freed
        self._record_again = record_again
        self._sleep = sleep

    async def run_garbage_collector(self) -> None:
        """Periodically free what Pods that went without a notification have left.

        After a restart the runtime reports neither the stop nor the removal of sandboxes from before.
        """
        while True:
            await self._sleep(GARBAGE_COLLECTION_S)
            await self.collect_garbage()

    async def run_unreported_checks(self) -> None:
        """Periodically look for running Pods that the runtime has not named; record again what still holds."""
        for checks in itertools.count(1):
            await self._sleep(UNREPORTED_CHECK_S)
            self.check_unreported()
            if checks % RECORD_AGAIN_CHECKS == 0:
                self._record_again()

    async def run_audits(self) -> None:
        """Read the limits back for ever: one system call for all Pods."""
        while True:
            await self._sleep(AUDIT_S)
            await self.audit()

    async def collect_garbage(self) -> None:
        """Forget the sandboxes whose netns is gone, and free the slots without an owner."""
        shaper = await self._loader.shaper()
        live = {sandbox.key for sandbox in self._sandboxes}
        try:
            inodes = await self._kernel.run(shaper.inodes, live)
            looked_up = [sandbox for sandbox in self._sandboxes if sandbox.key in inodes]
            for sandbox in looked_up:
                self._state.on_netns_looked_up(sandbox, is_there=inodes[sandbox.key] is not None)
            for sandbox in looked_up:
                if inodes[sandbox.key] is None and self._state.is_gone(sandbox):
                    await self._forget(sandbox.id)
            freed = await self._kernel.run(shaper.collect, inodes)
        except ShapingError as error:
            logger.warning("cannot tell which Pods are gone", extra={"error": str(error)})
            return
        if freed:
            logger.info("freed the slots of Pods that are gone", extra={"slots": freed})
            self._on_slot_freed()

    def check_unreported(self) -> None:
        """Have the unreported Pods reconciled, which records an event for each."""
        for uid in self._state.check_unreported():
            self._enqueue(uid, Priority.RESYNC)

    async def audit(self) -> None:
        """Check that the limits map holds what was written, and have the Pods reconciled where it does not."""
        shaper = await self._loader.shaper()
        try:
            altered = await self._kernel.run(shaper.audit)
        except ShapingError as error:
            logger.warning("the limits were not checked", extra={"error": str(error)})
            return
        for uid in altered:
            self._enqueue(uid, Priority.DRIFT)

    async def counters(self) -> list[tuple[PodView, PodCounters]]:
        """What the kernel counted, with the Pods' names, for the metrics.

        Empty before the program is loaded, and while the kernel does not answer: other metrics are still served.
        """
        if not self._loader.done:
            return []
        try:
            async with asyncio.timeout(COUNTERS_TIMEOUT_S):
                return await self._counted()
        except TimeoutError:
            return []

    async def _counted(self) -> list[tuple[PodView, PodCounters]]:
        known = {sandbox.key: sandbox for sandbox in self._sandboxes}
        shaper, counted = await self._loader.shaper(), list[PodCounters]()
        owners = await self._kernel.run(shaper.slot_owners)
        for start in range(0, len(owners), COUNTERS_BATCH):  # a Pod that starts meanwhile waits for one batch only
            try:
                counted += await self._kernel.run(shaper.counters, owners[start : start + COUNTERS_BATCH])
            except ShapingError as error:  # the scrape has all other figures; the next scrape may have these
                logger.warning("some Pods were not counted", extra={"error": str(error)})
        of_pods = [(known.get(Key(each.pod_uid, each.netns_path or "")), each) for each in counted]
        return [
            (held.pod, each.holding(self._state.applied(held).limits)) for held, each in of_pods if held is not None
        ]
