"""How long Pods ran without their limits because no reconciler could limit them at their start (RanUnlimited). Pure.

The container runtime does not wait for a reconciler that is away or takes too long (fail-open), so this time is counted
and reported.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from reconciler.report import Notice, Reason
from reconciler.sandboxes import Key


@dataclass(slots=True)
class RanUnlimited:
    """Sandboxes, by Pod uid and netns path, that were not limited before the runtime began to start containers.

    All times are seconds since the epoch.
    """

    _found: dict[Key, float] = field(default_factory=dict)
    _limited: dict[Key, tuple[float, float]] = field(default_factory=dict)

    def add(self, keys: Iterable[Key], *, since_s: float = 0.0) -> None:
        """These may have started without the limits that they ask for; not before `since_s`.

        A Pod's start may be long before `since_s`, if its sandbox was made anew.
        """
        self._found |= {key: max(since_s, self._found.get(key, 0.0)) for key in keys}

    def __contains__(self, key: Key) -> bool:
        """Whether a sandbox was found, and not reconciled since."""
        return key in self._found

    def on_reconciled(
        self, key: Key, *, newly_limited: bool, has_ended: bool = False, now_s: float, netns_created_s: float
    ) -> None:
        """A sandbox has what it should have. Only the first reconcile counts: limits asked for later are on time.

        `netns_created_s`: the sandbox is no older; the API server may report containers of a former sandbox.
        `has_ended`: all its containers have ended. If it is then unknown since when it may have been unlimited, its
        limits are assumed to have been removed at its end: a runtime that fails to remove its network still lists it.
        """
        since_s = self._found.pop(key, None)
        if since_s is not None and newly_limited and (since_s or not has_ended):
            self._limited[key] = max(since_s, netns_created_s), now_s

    def unlimited_s(self, key: Key, started_s: float | None) -> float:
        """How long a Pod ran without its limits, reported once; usually 0. `started_s`: its first container's start."""
        if started_s is None:
            # The API server, which alone knows, has not reported the Pod yet; or no container has started.
            return 0.0
        since_s, until_s = self._limited.pop(key, (0.0, 0.0))
        return max(0.0, until_s - max(since_s, started_s))

    def forget(self, key: Key) -> None:
        """The sandbox is gone."""
        self._found.pop(key, None)
        self._limited.pop(key, None)


def notice(unlimited_s: float) -> Notice:
    """The event for the Pod's owner."""
    return Notice(
        Reason.RAN_UNLIMITED,
        f"this Pod ran without its limits for {math.ceil(unlimited_s)} s at most, from the start of its first "
        "container (or of its sandbox, where that is not told), as the node's reconciler was away or could not limit "
        "it at that time",
    )
