"""Exponential backoff: for each Pod whose kernel state changes again and again, and for what failed. Pure.

The first change is answered almost at once: a few changes that belong together should cost one reconcile. A Pod that
keeps changing its own network (with NET_ADMIN it can, at any rate) is reconciled less and less often, but always within
a second of a change, so that it is limited again and no other Pod waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from webhook.common.backoff import delay_s

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 0.8
ALL_MAX_DELAY_S = 5.0
"""For changes that may concern any Pod: all Pods are reconciled, which takes longer."""
RESET_AFTER_S = 10.0

RETRY_S = (1.0, 2.0, 5.0, 15.0, 60.0)
"""How long to wait after a failure; the last of these after all further ones."""


def retry_delay_s(failures_before: int) -> float:
    """How long to wait after a failure, by how many in a row there were before."""
    return RETRY_S[min(failures_before, len(RETRY_S) - 1)]


@dataclass(slots=True)
class Backoff:
    """The delays of many Pods, each by its uid: `FIRST_DELAY_S` twice, then doubling up to `max_delay_s`.

    After `RESET_AFTER_S` without a change a Pod starts from `FIRST_DELAY_S` again.
    """

    max_delay_s: float
    _changes: dict[str, tuple[int, float]] = field(default_factory=dict)

    def delay_s(self, uid: str, now_s: float) -> float:
        """The delay before the reconcile for a change at `now_s`; each change counts towards the next delay."""
        count, last_s = self._changes.get(uid, (0, now_s))
        if now_s - last_s > RESET_AFTER_S:
            count = 0
        self._changes[uid] = (count + 1, now_s)
        return delay_s(max(1, count), FIRST_DELAY_S, self.max_delay_s)

    def forget(self, uid: str) -> None:
        """The Pod is gone."""
        self._changes.pop(uid, None)
