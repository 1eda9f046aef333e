"""What the controller needs of the world: the kernel, its notifications, and somebody to tell."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from reconciler.bypass import Sample
from reconciler.counters import PodCounters
from reconciler.pods import PodView
from reconciler.report import Notice
from reconciler.sandboxes import Key
from reconciler.shaping import Outcome
from reconciler.slots import Tenant
from webhook.contract import Limits


class Shaper(Protocol):
    """What the controller needs of the kernel side; every call blocks, for milliseconds."""

    adopted: bool
    found: Mapping[Key, Limits | None]
    """What each netns held at the start, in which there was anything of ours; None where it could not be read."""

    def shape(self, pod_uid: str, netns_path: str, limits: Limits) -> Outcome:
        """Make one netns hold these limits."""
        ...

    def release(self, pod_uid: str, netns_path: str) -> None:
        """The Pod is gone: take away what is left, free its slot."""
        ...

    def collect(self, live: Collection[Key]) -> int:
        """Free the slots of those that are gone."""
        ...

    def vanished(self, keys: Collection[Key]) -> Sequence[Key]:
        """Those of these whose netns is no longer there."""
        ...

    def audit(self) -> Sequence[str]:
        """The uids of Pods whose limits somebody else changed in the map."""
        ...

    def sample(self, pod_uid: str, netns_path: str, interfaces: Collection[str]) -> Sample | None:
        """What a Pod has sent past its egress limit so far; None without one."""
        ...

    def tenants(self) -> Sequence[Tenant]:
        """As reconciler.shaping.Shaper."""
        ...

    def counters(self, tenants: Iterable[Tenant] | None = None) -> Sequence[PodCounters]:
        """What each slot has counted."""
        ...

    def close(self) -> None:
        """Let go of it; what is in force stays so."""
        ...


class Monitor(Protocol):
    """Hears of changes in the network namespaces it was told of."""

    def watch(self, netns_path: str) -> None:
        """Listen to a netns."""
        ...

    def unwatch(self, netns_path: str) -> None:
        """Stop listening to it."""
        ...


class Tell(Protocol):
    """Where notices go."""

    def tell(self, pod: PodView, notice: Notice) -> None:
        """Tell of something about a Pod."""
        ...

    def tell_node(self, notice: Notice) -> None:
        """Tell of something about this node."""
        ...

    def forget(self, uid: str) -> None:
        """The Pod is gone."""
        ...
