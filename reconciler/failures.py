"""Failed reconciles: an event on the Pod for each reason, and a retry with backoff."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

from prometheus_client import Counter

from reconciler.backoff import RETRY_S, retry_delay_s
from reconciler.events import Events
from reconciler.kernel.errors import NoSlotLeftError, ShapingError
from reconciler.node_state import NodeState
from reconciler.report import Notice, Reason
from reconciler.sandboxes import Key, Sandbox

_NO_NETNS = (
    "the container runtime does not say which network namespace it has: create the Pod anew if another version of the "
    "runtime started it (containerd 2.4 names none of those of 2.2); where the runtime leaves sandboxes to another "
    "program (a RuntimeClass of virtual machines, for example), Pods of that RuntimeClass cannot be limited"
)
_NOT_NAMED = (
    "the container runtime has not told the reconciler of it: it may be out of reach (the Node's events tell: "
    "RuntimeUnreachable), or its list may have left this Pod out; if so, delete the reconciler's Pod of this node, as "
    "that has the list made anew, and if it does not help, create this Pod anew"
)


class Failures:
    """Records events for failed reconciles, counts them, and has the Pods reconciled again."""

    def __init__(
        self,
        state: NodeState,
        *,
        events: Events,
        errors: Counter,
        enqueue: Callable[[str], None],
        spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._state = state
        self._events = events
        self._errors = errors
        self._enqueue = enqueue
        self._spawn = spawn
        self._sleep = sleep
        self._retrying: dict[Key, asyncio.Task[None]] = {}
        self._without_slot: set[Key] = set()
        """Those whose last failure was that all slots are taken, until they are tried again."""

    def report_unloaded(self, sandbox: Sandbox, trouble: str) -> None:
        """Record once for each reason that no limit can be set on the node. What the kernel holds is not known then."""
        self._report_once(
            sandbox, f"this Pod has no limit but one set before, as none can be set on this node now: {trouble}"
        )

    def _report_once(self, sandbox: Sandbox, message: str) -> int:
        """Record once for each reason that a Pod is not limited; returns how often it failed before."""
        count, is_news = self._state.on_failed(sandbox, message)
        if is_news:
            self._events.record(self._state.view(sandbox), Notice(Reason.FAILED, message))
        return count

    def record_again(self) -> None:
        """Record again the events that still hold."""
        for sandbox, notices, failure in self._state.standing():
            for notice in (*notices, *([Notice(Reason.FAILED, failure)] if failure else [])):
                self._events.record(self._state.view(sandbox), notice)

    def report_unlocated(self, uid: str, trouble: str | None) -> None:
        """An event for a Pod that asks for a limit, but whose netns is unknown; `trouble`: no Pod can be limited."""
        for sandbox in self._state.unlocated(uid):
            if trouble:
                self.report_unloaded(sandbox, trouble)
            else:
                self._report_once(sandbox, _not_limited(_NO_NETNS if sandbox.id else _NOT_NAMED))

    def on_failed(self, sandbox: Sandbox, error: ShapingError) -> None:
        """Record the failure, and try again with backoff."""
        count = self._report_once(sandbox, _not_limited(error))
        self._errors.labels(kind=type(error).__name__).inc()
        if isinstance(error, NoSlotLeftError):
            self._without_slot.add(sandbox.key)
        else:
            self._without_slot.discard(sandbox.key)
        if not count:
            self._end_retry(sandbox)  # not of a failure, so it may wait for a minute
        self.try_again(sandbox, retry_delay_s(count))

    def try_again(self, sandbox: Sandbox, delay_s: float = RETRY_S[-1]) -> None:
        """Have it reconciled after a while."""
        if sandbox.key not in self._retrying:  # a Pod that changes all the time also fails in between
            self._retrying[sandbox.key] = self._spawn(self._again(sandbox, delay_s))

    def on_succeeded(self, sandbox: Sandbox) -> None:
        """End the retry, if one waits: it may wait for a minute, and the next failure is to be tried again sooner."""
        self._without_slot.discard(sandbox.key)
        self._end_retry(sandbox)

    def on_slot_freed(self) -> None:
        """Have those reconciled now that no slot was left for."""
        for key in self._without_slot:
            self._enqueue(key.pod_uid)

    def _end_retry(self, sandbox: Sandbox) -> None:
        if (retry := self._retrying.pop(sandbox.key, None)) is not None:
            retry.cancel()

    async def _again(self, sandbox: Sandbox, delay_s: float) -> None:
        await self._sleep(delay_s)
        del self._retrying[sandbox.key]
        self._without_slot.discard(sandbox.key)
        self._enqueue(sandbox.pod.uid)


def _not_limited(why: object) -> str:
    return f"this Pod is not limited as asked: {why}"
