"""Unreported Pods: they run and ask for a limit, says the API server, but the runtime never named them. Pure.

The runtime's list may omit some: containerd omits sandboxes whose state it cannot read at the moment.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

UNSYNCHRONIZED_CHECKS: Final = 4
"""The first check that counts if the runtime lists no Pods; the next one, after five minutes, finds missing Pods."""


@dataclass(slots=True)
class UnreportedPods:
    """The uids of Pods. Missing are those absent at two checks in a row: at one, a hook may be on its way."""

    _waits: int = UNSYNCHRONIZED_CHECKS
    """How many further checks have no effect, as the runtime may be about to list all Pods."""
    _reported: set[str] = field(default_factory=set)
    """Also Pods that have ended since: if the API server is away, it has not reported their end."""
    _absent: AbstractSet[str] = frozenset()
    _missing: AbstractSet[str] = frozenset()

    def on_reported(self, uid: str) -> None:
        """The runtime reports a Pod."""
        self._reported.add(uid)

    def on_synchronized(self, uids: Iterable[str]) -> None:
        """The runtime lists all Pods. Before that, none is missing for a while: the problem is the node's."""
        self._reported.update(uids)
        self._waits = 0

    def check(
        self, running: AbstractSet[str], *, known: AbstractSet[str], there: AbstractSet[str], has_unidentified: bool
    ) -> None:
        """Find the running Pods that are absent. `known`: to the API server. `there`: with a known sandbox.

        `has_unidentified`: any of them may be limited already, in a netns whose owner only the runtime knows.
        """
        self._reported &= known | there
        if not has_unidentified:
            self._waits = max(0, self._waits - 1)
        self._missing, self._absent = self._absent, frozenset() if self._waits else running - self._reported - there

    @property
    def missing(self) -> AbstractSet[str]:
        """The Pods that were absent at the last two checks, and have not been reported since."""
        return self._missing & self._absent - self._reported
