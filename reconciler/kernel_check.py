"""Checks what the node's kernel lacks, and reports it in the log, by /readyz, in a metric, and on the Node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import Gauge

from reconciler.kernel.errors import ShapingError
from reconciler.report import Notice, Reason
from reconciler.requirements import NEVER_LATER, REQUIREMENTS, Feature, Lack, lacks

# The missing module may be loaded later.
AGAIN_S = 60.0

logger = logging.getLogger(__name__)


class KernelCheck:
    """Probes the kernel at the start, and again until nothing is missing that could still be added."""

    def __init__(
        self,
        probe: Callable[[], Mapping[Feature, str]],
        *,
        record_node: Callable[[Notice], None],
        gauge: Gauge,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._probe, self._record_node, self._gauge, self._sleep = probe, record_node, gauge, sleep
        self._lacks: tuple[Lack, ...] = ()

    async def run(self) -> None:
        """Probe until all that can be there is there. Work on Pods does not wait for this."""
        while True:
            try:
                found = lacks(await asyncio.to_thread(self._probe))
            except (ShapingError, RuntimeError) as error:  # RuntimeError: no thread can be started
                logger.warning("cannot find out what the kernel offers", extra={"error": str(error)})
            else:
                self._record(found)
                if all(lack.feature in NEVER_LATER for lack in found):
                    return
            await self._sleep(AGAIN_S)

    def why_not_ready(self) -> str | None:
        """What limits need and the kernel lacks; None when nothing is known to be missing."""
        return "; ".join(lack.message for lack in self._lacks if lack.is_vital) or None

    def _record(self, found: tuple[Lack, ...]) -> None:
        before = {lack.feature for lack in self._lacks}
        for lack in found:
            self._gauge.labels(*_labels(lack.feature)).set(1)
            if lack.feature in before:
                continue
            logger.log(logging.ERROR if lack.is_vital else logging.WARNING, lack.message)
            self._record_node(Notice(Reason.KERNEL_LACKS, lack.message))
        for feature in before - {lack.feature for lack in found}:
            self._gauge.remove(*_labels(feature))
        if self.why_not_ready() and not any(lack.is_vital for lack in found):
            message = "this node's kernel has all now that bandwidth limits need"
            logger.info(message)
            self._record_node(Notice(Reason.KERNEL_READY, message))
        self._lacks = found


def _labels(feature: Feature) -> tuple[str, str]:
    """The metric's labels. No alert for features that limits can do without: older kernels never have them."""
    return feature, "yes" if REQUIREMENTS[feature].is_vital else "no"
