"""Debounces changes that others make in the kernel: many changes close together cost one reconcile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine

from reconciler.backoff import Backoff


class Debouncer:
    """Calls back once for many changes of one key close together. `max_delay_s` is the longest that a change waits."""

    def __init__(
        self,
        on_settled: Callable[[str], None],
        max_delay_s: float,
        *,
        spawn: Callable[[Coroutine[None, None, None]], object],
        sleep: Callable[[float], Awaitable[None]],
        monotonic: Callable[[], float],
    ) -> None:
        self._on_settled = on_settled
        self._spawn = spawn
        self._sleep = sleep
        self._monotonic = monotonic
        self._waiting: set[str] = set()
        self._backoff = Backoff(max_delay_s)

    def changed(self, key: str) -> None:
        """Something changed."""
        if key not in self._waiting:
            self._waiting.add(key)
            self._spawn(self._settle(key, self._backoff.delay_s(key, self._monotonic())))

    def forget(self, key: str) -> None:
        """The key is gone."""
        self._backoff.forget(key)

    async def _settle(self, key: str, delay_s: float) -> None:
        await self._sleep(delay_s)
        self._waiting.discard(key)
        self._on_settled(key)
