"""A token bucket, by which something may be done a few times at once, and then at a steady rate."""

from collections.abc import Callable


class TokenBucket:
    """A token bucket: `burst` times at once, then once in `period_s` seconds. `monotonic` gives seconds."""

    def __init__(self, burst: int, period_s: float, monotonic: Callable[[], float]) -> None:
        self._burst = float(burst)
        self._period_s = period_s
        self._monotonic = monotonic
        self._tokens = float(burst)
        self._at_s = monotonic()

    def take(self) -> bool:
        """Take one token; False when there is none."""
        now_s = self._monotonic()
        self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) / self._period_s)
        self._at_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
