"""Loads the Shaper with retries, until the BPF program is loaded or adopted, and reports what is in the way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import Counter

from reconciler.backoff import retry_delay_s
from reconciler.kernel.errors import ShapingError
from reconciler.kernel_executor import KernelExecutor
from reconciler.report import Notice, Reason
from reconciler.sandboxes import Key
from reconciler.shaping import Shaper
from webhook.common.contract import Limits

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FoundLimits:
    """What was found for a netns: the wanted limits, and those that packets pass through (None: unknown)."""

    wanted: Limits
    in_force: Limits | None


class ShaperLoader:
    """The shaper, and the wait for it."""

    def __init__(
        self,
        start: Callable[[Sequence[Key]], Shaper],
        kernel: KernelExecutor,
        *,
        record_node: Callable[[Notice], None],
        errors: Counter,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._start = start
        self._kernel = kernel
        self._record_node = record_node
        self._errors = errors
        self._sleep = sleep
        self._loaded: asyncio.Future[Shaper] = asyncio.get_running_loop().create_future()
        self._tried = asyncio.Event()
        self.trouble: str | None = None
        """The last error, until the shaper is loaded."""

    @property
    def done(self) -> bool:
        """Whether the shaper is loaded, and so Pods can be limited."""
        return self._loaded.done() and not self._loaded.cancelled()

    async def shaper(self) -> Shaper:
        """The shaper; waits until it is loaded."""
        return await asyncio.shield(self._loaded)

    async def tried(self) -> None:
        """Wait until it is loaded, or the first try has failed."""
        await self._tried.wait()

    def finish(self, shaper: Shaper) -> None:
        """Wake up all that wait for the shaper."""
        if self.trouble is not None:
            self._record_node(
                Notice(Reason.STARTED, "Pods of this node can be limited now: what kept them from it is gone")
            )
        self.trouble = None
        self._loaded.set_result(shaper)
        self._tried.set()

    def record_again(self) -> None:
        """Record on the Node again what is in the way, if it still is."""
        if self.trouble is not None:
            self._record_node(_cannot_start(self.trouble))

    async def prepare(self, call: Callable[[], None]) -> None:
        """Try once the slow part of a start, which needs no sandboxes."""
        await self._try(self._kernel.run_load(call))

    async def load(self, keys: Callable[[], Sequence[Key]]) -> tuple[Shaper, Mapping[Key, FoundLimits]]:
        """Try until it works, each time for the current sandboxes. Returns also what the kernel holds."""
        tries = 0
        while True:
            taken = await self._try(self._take_over(keys()))
            if taken is not None:
                return taken
            await self._sleep(retry_delay_s(tries))
            tries += 1

    async def _try(self, work: Awaitable[T]) -> T | None:
        try:
            return await work
        except Exception as error:  # whatever the error, the node's Pods are unlimited until a try succeeds
            if isinstance(error, ShapingError | OSError):  # for example out of descriptors, memory, processes
                logger.error("cannot start shaping on this node", extra={"error": str(error)})
            else:
                logger.exception("a defect: cannot start shaping on this node")
            if self.trouble != str(error):
                self.trouble = str(error)
                self._record_node(_cannot_start(self.trouble))
            self._tried.set()
            self._errors.labels(kind=type(error).__name__).inc()
            return None

    async def _take_over(self, keys: Sequence[Key]) -> tuple[Shaper, Mapping[Key, FoundLimits]]:
        shaper = await self._kernel.run_load(self._start, keys)
        try:
            counted = await self._kernel.run(shaper.counters)
        except BaseException:
            shaper.close()  # the next try has descriptors of its own
            raise
        # The map also has limits without an attached filter; the filters also show the limits of older programs.
        in_map = {Key(pod.pod_uid, pod.netns_path): pod.limits for pod in counted if pod.netns_path and pod.limits}
        found = {key: FoundLimits(limits, in_force=Limits()) for key, limits in in_map.items()}
        for key, limits in shaper.found.items():
            # For a netns that could not be read, the map's limits are assumed to be in force.
            in_force = in_map.get(key) if limits is None else limits
            found[key] = FoundLimits(in_map.get(key, in_force or Limits()), in_force)
        return shaper, found


def _cannot_start(why: str) -> Notice:
    return Notice(Reason.CANNOT_START, f"limits in force stay, and no other can be set on this node: {why}")
