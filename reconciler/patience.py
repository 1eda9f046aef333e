"""How long to wait before looking at a Pod again whose kernel state changed. Pure.

The first change is answered at once, more or less: a few that belong together should cost one look. A Pod that keeps
changing its own network (one with NET_ADMIN can, as fast as it likes) is looked at less and less often, but within a
second each time, so that it is limited again and no other Pod waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST_S = 0.1
MOST_S = 0.8
CALM_S = 10.0
PROMPT_LOOKS = 2


@dataclass(slots=True)
class Patience:
    """The delays of many Pods, each by its uid: `FIRST_S` twice, then doubling up to `most_s`, until it is calm."""

    most_s: float = MOST_S
    _looks: dict[str, tuple[int, float]] = field(default_factory=dict)

    def delay_s(self, uid: str, now_s: float) -> float:
        """The delay before the look that a change at `now_s` asks for; each counts towards the next."""
        count, last_s = self._looks.get(uid, (0, now_s))
        if now_s - last_s > CALM_S:
            count = 0
        self._looks[uid] = (count + 1, now_s)
        doublings = min(max(0, count + 1 - PROMPT_LOOKS), 32)
        return float(min(self.most_s, FIRST_S * 2**doublings))

    def forget(self, uid: str) -> None:
        """The Pod is gone."""
        self._looks.pop(uid, None)
