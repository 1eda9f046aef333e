"""Debounces changes that others make in the kernel: many changes close together cost one reconcile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine

from reconciler.backoff import Backoff

# For changes that may concern any Pod: all Pods are reconciled, which takes longer.
ALL_MAX_DELAY_S = 5.0
_ALL = ""


class Debouncer:
    """Calls back once for many changes close together: with a Pod's uid, or without one when it may be any Pod."""

    def __init__(
        self,
        *,
        on_settled: Callable[[str], None],
        on_all_settled: Callable[[], None],
        spawn: Callable[[Coroutine[None, None, None]], object],
        sleep: Callable[[float], Awaitable[None]],
        monotonic: Callable[[], float],
    ) -> None:
        self._on_settled = on_settled
        self._on_all_settled = on_all_settled
        self._spawn = spawn
        self._sleep = sleep
        self._monotonic = monotonic
        self._waiting: set[str] = set()
        self._backoff, self._backoff_of_all = Backoff(), Backoff(ALL_MAX_DELAY_S)

    def changed(self, uid: str) -> None:
        """Something changed in a Pod's netns."""
        if uid not in self._waiting:
            self._waiting.add(uid)
            self._spawn(self._settle(uid, self._backoff.delay_s(uid, self._monotonic())))

    def changed_anywhere(self) -> None:
        """Something may have changed in any Pod's netns."""
        if _ALL not in self._waiting:
            self._waiting.add(_ALL)
            self._spawn(self._settle(_ALL, self._backoff_of_all.delay_s(_ALL, self._monotonic())))

    def forget(self, uid: str) -> None:
        """The Pod is gone."""
        self._backoff.forget(uid)

    async def _settle(self, uid: str, delay_s: float) -> None:
        await self._sleep(delay_s)
        self._waiting.discard(uid)
        if uid == _ALL:
            self._on_all_settled()
        else:
            self._on_settled(uid)
