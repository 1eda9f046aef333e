"""Unreported Pods: they run and ask for a limit, by the API server's word, and the runtime never named them. Pure.

Its list may leave some out, as containerd does with those whose state it cannot tell at the moment.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

UNSYNCHRONIZED_CHECKS: Final = 4
"""The first call that counts where the runtime tells of no Pods; the next, after five minutes, finds who is missing."""


@dataclass(slots=True)
class UnreportedPods:
    """The uids of Pods. Those are missing that two checks in a row found absent: a hook may be on its way at one."""

    _waits: int = UNSYNCHRONIZED_CHECKS
    """So many checks are still without effect, as the runtime may be about to tell of all."""
    _reported: set[str] = field(default_factory=set)
    """Also those that have ended since, which the API server may not have told while it is away."""
    _absent: AbstractSet[str] = frozenset()
    _missing: AbstractSet[str] = frozenset()

    def reported(self, uid: str) -> None:
        """The runtime tells of a Pod."""
        self._reported.add(uid)

    def synchronized(self, uids: Iterable[str]) -> None:
        """The runtime tells of all. Until it has, nobody is missing for a while: that is the node's trouble."""
        self._reported.update(uids)
        self._waits = 0

    def check(
        self, running: AbstractSet[str], *, known: AbstractSet[str], there: AbstractSet[str], has_unidentified: bool
    ) -> None:
        """Of those that run, who is absent? `known`: to the API server. `there`: there is something of theirs.

        `has_unidentified`: any of them may be limited already, by what the runtime alone can say whose it is.
        """
        self._reported &= known | there
        if not has_unidentified:
            self._waits = max(0, self._waits - 1)
        self._missing, self._absent = self._absent, frozenset() if self._waits else running - self._reported - there

    @property
    def missing(self) -> AbstractSet[str]:
        """Those that nothing was heard of since the check before the last."""
        return self._missing & self._absent - self._reported
