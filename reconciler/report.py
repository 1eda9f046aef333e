"""Which events a Pod gets, from what was in force before and what is in force now. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.model import ProblemKind
from reconciler.steps import SetRoot, Step
from webhook.common.contract import Direction, Limits


class Reason(StrEnum):
    """The reasons of the reconciler's own events on Pods and the Node; the kernel side adds those of its problems."""

    LIMITED = "BandwidthLimited"
    CHANGED = "BandwidthChanged"
    REMOVED = "BandwidthRemoved"
    REPAIRED = "BandwidthRepaired"
    FAILED = "BandwidthFailed"
    NOT_MANAGED = "NotManaged"
    INVALID = "InvalidBandwidth"
    UNSHAPED = "UnshapedTraffic"
    KERNEL_LACKS = "KernelLacks"
    KERNEL_READY = "KernelReady"
    CANNOT_START = "CannotShape"
    STARTED = "ShapingReady"
    RUNTIME_AWAY = "RuntimeUnreachable"
    RUNTIME_BACK = "RuntimeConnected"
    WATCH_REFUSED = "WatchRefused"
    WATCH_CONNECTED = "WatchConnected"
    CANNOT_LISTEN = "CannotListen"
    LISTENING = "Listening"
    RAN_UNLIMITED = "RanUnlimited"


_NORMAL = frozenset(
    {
        Reason.LIMITED,
        Reason.CHANGED,
        Reason.REMOVED,
        Reason.KERNEL_READY,
        Reason.STARTED,
        Reason.RUNTIME_BACK,
        Reason.WATCH_CONNECTED,
        Reason.LISTENING,
    }
)


NO_LIMITS = Limits()
_MOST_NAMED = 16


@dataclass(frozen=True, slots=True)
class Notice:
    """One event: its reason (CamelCase, as `kubectl describe` shows it) and its text."""

    reason: str
    message: str

    @property
    def type(self) -> str:
        """`Normal` or `Warning`."""
        return "Normal" if self.reason in _NORMAL else "Warning"


@dataclass(frozen=True, slots=True)
class Applied:
    """What is in force in one netns: the limits that hold on all its interfaces, these interfaces, and what is missing.

    `withheld` are limits that were asked for but do not hold on all of them; `in_part`: one of these holds on some.
    `modes` are those of the ipvlan interfaces, by name. `indexes` are those of all interfaces that share the limits, or
    did once and still exist.
    """

    limits: Limits = NO_LIMITS
    interfaces: tuple[str, ...] = ()
    notices: tuple[Notice, ...] = ()
    withheld: Limits = NO_LIMITS
    in_part: bool = False
    modes: Mapping[str, str] = field(default_factory=dict)
    indexes: frozenset[int] = frozenset()

    @property
    def in_conflict(self) -> bool:
        """Whether a foreign qdisc, filter or interface is in the way."""
        return any(notice.reason == ProblemKind.CONFLICT for notice in self.notices)

    @property
    def is_without_ipvlan(self) -> bool:
        """Whether a limit was asked for, and no ipvlan interface was there."""
        return any(notice.reason == ProblemKind.NO_IPVLAN for notice in self.notices)

    def has_other_modes(self, before: Applied) -> bool:
        """Whether an interface has another mode than before."""
        return any(self.modes.get(name, mode) != mode for name, mode in before.modes.items())

    @property
    def asked(self) -> Limits:
        """The limits that were asked for."""
        return Limits(self.limits.ingress or self.withheld.ingress, self.limits.egress or self.withheld.egress)


def applied(
    asked: Limits,
    interfaces: tuple[str, ...],
    missing: Mapping[Direction, tuple[str, ...]],
    notices: tuple[Notice, ...] = (),
) -> Applied:
    """What is in force when these limits were asked for; `missing`: the interfaces where a direction does not hold.

    Without interfaces nothing is in force: the Pod is on a network other than ipvlan.
    """
    if not interfaces:
        return Applied(notices=notices)
    kept = {each: asked.get(each) for each in Direction if each not in missing}
    withheld = {each: asked.get(each) for each in missing}
    in_part = any(len(links) < len(interfaces) for links in missing.values())
    return Applied(Limits.of(kept), interfaces, notices, Limits.of(withheld), in_part)


NOTHING = Applied()


def lost(before: Applied, others: Mapping[int, str]) -> dict[int, str]:
    """Of the interfaces that share no limit, those that did before, by index: `others` are their names."""
    return {index: name for index, name in others.items() if index in before.indexes}


def lost_notices(names: Mapping[int, str]) -> tuple[Notice, ...]:
    """What to say of them. An ipvlan interface shares the limit, and so does a veth while it has what is ours on it."""
    if not names:
        return ()
    message = (
        f"{', '.join(names.values())} shared the limit under another name, and is not known any more: our qdiscs and "
        "filters on it are gone, or it is one of more interfaces than are looked at; what it sends and receives may "
        "not be limited; give it its name back, and if a container took it, drop NET_ADMIN"
    )
    return (Notice(ProblemKind.RENAMED, message),)


def describe(limits: Limits) -> str:
    """`ingress 100M, egress 20M bit/s`, in a fixed order."""
    parts = [f"{direction.value} {limit}" for direction in Direction if (limit := limits.get(direction))]
    return ", ".join(parts) + " bit/s" if parts else "no limit"


def report(before: Applied, after: Applied, steps: Iterable[Step], *, is_mended: bool = False) -> tuple[Notice, ...]:
    """The events for the change from `before` to `after`, which took these steps in the kernel.

    Usually there are no steps and the limits are the same, which gives no event: so a restarted reconciler that finds
    everything as it should be is quiet. A notice that stood before is not repeated. What is asked for but not in force
    gets no event here: the notices say why. Nor does a step that only follows the NIC's MTU or the kernel's modules.
    `is_mended`: its owner was told of a failure, and is told that the limits are in force though nothing changed.
    """
    told = tuple(notice for notice in after.notices if notice not in before.notices)
    done = tuple(str(step) for step in steps if not (isinstance(step, SetRoot) and step.is_update))
    changes = _change(before, after, done)
    if is_mended and after.limits and not changes:
        changes = (Notice(Reason.LIMITED, _limited(after)),)
    return (*changes, *told)


def _change(before: Applied, after: Applied, steps: tuple[str, ...]) -> tuple[Notice, ...]:
    if before.asked != after.asked:
        return _asked_anew(before, after, steps)
    gained = any(after.limits.get(each) and not before.limits.get(each) for each in Direction)
    if gained or (after.limits and before.in_conflict and not after.in_conflict):
        gone = "" if after.notices or after.withheld else ": what stood in the way is gone"
        return (Notice(Reason.LIMITED, f"{_limited(after)}{gone}"),)
    if not steps or not after.limits or before.limits != after.limits:
        return ()
    if before.interfaces != after.interfaces:
        return (Notice(Reason.LIMITED, _limited(after)),)
    where = _named(after.interfaces)
    return (
        Notice(
            Reason.REPAIRED,
            f"the shaping on {where} had been changed by someone else and was put back: {'; '.join(steps)}",
        ),
    )


def _asked_anew(before: Applied, after: Applied, steps: tuple[str, ...]) -> tuple[Notice, ...]:
    if not after.asked and before.in_part:
        return (Notice(Reason.REMOVED, f"no longer limited (was in part, to {describe(before.asked)})"),)
    if before.limits == after.limits:
        return ()
    if not before.limits:
        return (Notice(Reason.LIMITED, _limited(after)),) if steps else ()
    if not after.asked:
        return (Notice(Reason.REMOVED, f"no longer limited (was {describe(before.limits)})"),)
    return (Notice(Reason.CHANGED, f"limits changed from {describe(before.limits)} to {describe(after.limits)}"),)


def _named(interfaces: tuple[str, ...]) -> str:
    """As many as leave room for the rest of an event."""
    more = len(interfaces) - _MOST_NAMED
    return ", ".join(interfaces[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _limited(after: Applied) -> str:
    limited = f"limited to {describe(after.limits)} on {_named(after.interfaces)}"
    return f"{limited}, but for what the warnings beside this say" if after.notices or after.withheld else limited
