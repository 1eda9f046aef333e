"""Who is missing: Pods that run and ask for a limit, by the API server's word, and that the runtime never named. Pure.

Its list may leave some out, as containerd does with those whose state it cannot tell at the moment.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field


@dataclass(slots=True)
class RollCall:
    """The uids of Pods. Those are missing that two calls in a row found absent: a hook may be on its way at one."""

    _begun: bool = False
    _named: set[str] = field(default_factory=set)
    """Also those that have ended since, which the API server may not have told while it is away."""
    _absent: AbstractSet[str] = frozenset()
    _missing: AbstractSet[str] = frozenset()

    def named(self, uid: str) -> None:
        """The runtime tells of a Pod."""
        self._named.add(uid)

    def replayed(self, uids: Iterable[str]) -> None:
        """The runtime tells of all. Until it has, nobody is missing: that is the node's trouble."""
        self._named.update(uids)
        self._begun = True

    def call(self, running: AbstractSet[str], *, known: AbstractSet[str], there: AbstractSet[str]) -> None:
        """Of those that run, who is absent? `known`: to the API server. `there`: there is something of theirs."""
        self._named &= known | there
        self._missing, self._absent = self._absent, running - self._named - there if self._begun else frozenset()

    @property
    def missing(self) -> AbstractSet[str]:
        """Those that nothing was heard of since the call before the last."""
        return self._missing & self._absent - self._named
