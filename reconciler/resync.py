"""The periodic resync of limited Pods: finds drift and unshaped traffic for which there is no notification.

The kernel notifies of almost every change (`reconciler.kernel.monitor`), but not of another `gso_max_size`, nor of a
Pod that sends past its limit. The resync of a Pod takes half a millisecond, a full one three, so one per `PERIOD_S` is
cheap whatever the number of Pods: with 250, each is resynced once in 25 minutes.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from reconciler.bypass import Sample, Traffic, unshaped
from reconciler.events import Events
from reconciler.kernel.errors import ShapingError
from reconciler.kernel_executor import KernelExecutor
from reconciler.node_state import NodeState
from reconciler.pods import PodView
from reconciler.report import Notice, Reason
from reconciler.sandboxes import Key, Sandbox
from reconciler.shaper_loader import ShaperLoader

PERIOD_S = 6.0
FULL_ROUNDS = 4
"""One round in so many is full; so is the resync of a Pod that seems to have sent past its limit."""

logger = logging.getLogger(__name__)


class Resync:
    """Resyncs Pods in turn, and counts what each has sent past its egress limit."""

    def __init__(
        self,
        state: NodeState,
        *,
        loader: ShaperLoader,
        kernel: KernelExecutor,
        reconcile: Callable[[Sandbox], Awaitable[object]],
        events: Events,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._state = state
        self._loader = loader
        self._kernel = kernel
        self._reconcile = reconcile
        self._events = events
        self._sleep = sleep
        self._round: list[Sandbox] = []
        self._rounds = 0
        self._samples: dict[Key, Sample] = {}
        self._unshaped: dict[Key, Traffic] = {}

    async def run(self) -> None:
        """Resync for ever, round after round."""
        while True:
            await self._sleep(PERIOD_S)
            await self.step()

    async def step(self) -> None:
        """Resync the next Pod, if there is one."""
        limited = {sandbox.key: sandbox for sandbox in self._state.limited()}
        self._samples = {key: held for key, held in self._samples.items() if key in limited}
        self._unshaped = {key: held for key, held in self._unshaped.items() if key in limited}
        self._round = [sandbox for sandbox in self._round if sandbox.key in limited]
        if not self._round:
            self._round, self._rounds = list(limited.values()), self._rounds + 1
        if self._round:
            await self._resync(self._round.pop(0))

    def unshaped(self) -> list[tuple[PodView, Traffic]]:
        """The least that each limited Pod has sent past its egress limit."""
        return [(self._state.view(each), self._unshaped.get(each.key, Traffic())) for each in self._state.limited()]

    async def sample(self, sandbox: Sandbox, *, full: bool) -> Sample | None:
        """What a Pod has sent past its egress limit so far, None if unknown. `full`: reconcile it too."""
        if full:
            await self._reconcile(sandbox)
        applied = self._state.applied(sandbox)
        # An adopted Pod has no interfaces until it is reconciled: their traffic would seem to have bypassed the limit.
        if applied.limits.egress is None or applied.in_conflict or not applied.interfaces:
            return None
        try:
            return await self._kernel.run((await self._loader.shaper()).sample, *sandbox.key, applied.interfaces)
        except ShapingError as error:
            logger.info("cannot read what a Pod has sent", extra={"pod": str(sandbox.pod), "error": str(error)})
            return None

    async def _resync(self, sandbox: Sandbox) -> None:
        full = self._rounds % FULL_ROUNDS == 0
        sample = await self.sample(sandbox, full=full)
        before = self._samples.pop(sandbox.key, None)
        if sample is not None and unshaped(before, sample).packets and not full:
            # It looks the same if the shaper was removed and no notification came: then this puts it back, and the
            # samples cannot be compared any more.
            sample = await self.sample(sandbox, full=True)
        if sample is None or sandbox.key not in {each.key for each in self._state.limited()}:
            return  # no event for a Pod that is gone meanwhile: its token buckets are already forgotten
        self._samples[sandbox.key] = sample
        passed = unshaped(before, sample)
        if passed.packets:
            self._unshaped[sandbox.key] = self._unshaped.get(sandbox.key, Traffic()) + passed
            self._events.record(self._state.view(sandbox), _notice(passed))


def _notice(passed: Traffic) -> Notice:
    return Notice(
        Reason.UNSHAPED,
        f"at least {passed.packets} packets ({passed.bytes} bytes) went past the egress limit lately: a container with "
        "CAP_NET_RAW can send so (packet sockets with PACKET_QDISC_BYPASS); take NET_RAW from it "
        "(securityContext.capabilities.drop). Tunnel traffic (such as VXLAN) can be over-counted by up to 5 %; "
        "that is no bypass",
    )
