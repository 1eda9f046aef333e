"""Admission of a Pod: (the Pod, its old self, the namespace's policy) -> decision. Pure, and idempotent.

The messages for a refused Pod's author are written here, with all problems at once. A decision leaves alone:
- mirror Pods, which represent a static Pod that already runs;
- on UPDATE whatever did not change, and all of a Pod that is being deleted: a Pod older than the namespace's opt-in
  can still be labelled, finalised and finished, whatever its annotations are. The `matchConditions` in the manifest
  express the same, and save the call;
- the default network of a Pod that has one. One that an update drops is put back, as by a controller that replaces all
  annotations by its own: Multus reads it again when the Pod gets a new sandbox, and without it would then put the Pod
  on another network. Else a Pod that is not just being created gets none;
- a label that the Pod brings: if its workload selects by it, the controller would release a Pod without it, and create
  the next one, without end. So the managed label is added, and never removed or changed. Without a limit it means
  nothing; beside a limit, another value is refused, after which controllers back off.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from webhook.common.contract import (
    DEFAULT_NETWORK_ANNOTATION,
    MANAGED_LABEL,
    MIRROR_ANNOTATION,
    Direction,
    InvalidQuantity,
    Quantity,
    quoted,
)
from webhook.jsonpatch import Operation, map_changes
from webhook.policy import Policy

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_MANAGED: Final = "true"


class Reason(StrEnum):
    """Why a Pod is refused, as logs and metrics call it."""

    INVALID_BANDWIDTH = "InvalidBandwidth"
    HOST_NETWORK_LIMIT = "HostNetworkLimit"
    INVALID_NETWORK_LABEL = "InvalidNetworkLabel"
    INVALID_MANAGED_LABEL = "InvalidManagedLabel"


@dataclass(frozen=True, slots=True)
class Pod:
    """What admission looks at. A map that the object does not have is None."""

    annotations: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None
    host_network: bool = False
    windows: bool = False
    deleting: bool = False

    def annotation(self, name: str) -> str | None:
        """The value of an annotation, None where it is absent."""
        return (self.annotations or _NOTHING).get(name)

    def label(self, name: str) -> str | None:
        """The value of a label, None where it is absent."""
        return (self.labels or _NOTHING).get(name)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: a fixed word for metrics, a sentence for the author."""

    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Refused with all its problems, or allowed with the operations of a JSON patch and warnings for the author."""

    problems: tuple[Problem, ...] = ()
    patch: tuple[Operation, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether the Pod may be written."""
        return not self.problems

    @property
    def message(self) -> str:
        """All problems in one line, as `kubectl` and the events of a workload show it; empty if there is none."""
        if len(self.problems) == 1:
            return self.problems[0].text
        return " ".join(f"({number}) {problem.text}" for number, problem in enumerate(self.problems, 1))


@dataclass(slots=True)
class _Reading:
    """The result of reading a Pod's two annotations."""

    limits: dict[Direction, Quantity] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def review(pod: Pod, old: Pod | None, policy: Policy) -> Decision:
    """The decision on a Pod that is being created (`old` is None) or updated."""
    if pod.annotation(MIRROR_ANNOTATION) is not None or (old is not None and pod.deleting):
        return Decision()
    network = _network(pod, old, policy)
    if old is not None and _keeps_limits(pod, old):
        return Decision(patch=map_changes("/metadata/annotations", pod.annotations, network))
    changed = tuple(
        direction
        for direction in Direction
        if old is None or pod.annotation(direction.annotation) != old.annotation(direction.annotation)
    )
    reading = _read(pod, changed)
    problems = [*_host_network(pod, changed), *reading.problems, *_managed(pod, reading)]
    if old is None and policy.problem is not None:
        problems.append(Problem(Reason.INVALID_NETWORK_LABEL, policy.problem))
    if problems:
        return Decision(problems=tuple(problems))
    annotations = {
        direction.annotation: str(limit) for direction, limit in reading.limits.items() if direction in changed
    }
    if reading.limits and pod.windows:
        reading.warnings.append("nothing limits a Pod with spec.os.name: windows: there is no ipvlan on Windows")
    labels = {MANAGED_LABEL: _MANAGED} if reading.limits and not pod.host_network else _NOTHING
    return Decision(
        patch=(
            *map_changes("/metadata/annotations", pod.annotations, {**annotations, **network}),
            *map_changes("/metadata/labels", pod.labels, labels),
        ),
        warnings=tuple(reading.warnings),
    )


def _names_network(pod: Pod) -> bool:
    """Whether its author chose a network. A blank or `[]`, as templates leave, is no choice: Multus would fail."""
    return "".join((pod.annotation(DEFAULT_NETWORK_ANNOTATION) or "").split()) not in {"", "[]"}


def _network(pod: Pod, old: Pod | None, policy: Policy) -> Mapping[str, str]:
    """The annotation with the default network that a Pod lacks: its namespace's, or the one that an update drops."""
    if pod.host_network or _names_network(pod):
        return _NOTHING
    if old is None:
        network = policy.network
    else:
        network = old.annotation(DEFAULT_NETWORK_ANNOTATION) if _names_network(old) else None
    return {DEFAULT_NETWORK_ANNOTATION: network} if network else _NOTHING


def _keeps_limits(pod: Pod, old: Pod) -> bool:
    """Whether an update does not concern limits, as in the manifest's `matchConditions`."""
    return pod.label(MANAGED_LABEL) == old.label(MANAGED_LABEL) and all(
        pod.annotation(way.annotation) == old.annotation(way.annotation) for way in Direction
    )


def _read(pod: Pod, changed: tuple[Direction, ...]) -> _Reading:
    """The valid limits. An invalid one is a problem if this request brings it, a warning if it was there before."""
    reading = _Reading()
    for direction in Direction:
        text = pod.annotation(direction.annotation)
        if text is None:
            continue
        try:
            reading.limits[direction] = Quantity.parse(text)
        except InvalidQuantity as error:
            sentence = f"annotation {direction.annotation}: {error}"
            if direction in changed:
                reading.problems.append(Problem(Reason.INVALID_BANDWIDTH, sentence))
            else:
                reading.warnings.append(f"an invalid limit on {direction} changes nothing: {sentence}")
    return reading


def _host_network(pod: Pod, changed: tuple[Direction, ...]) -> Iterator[Problem]:
    """A limit on a Pod that is in its node's own network cannot be kept, whatever its value."""
    asked = [way.annotation for way in changed if pod.annotation(way.annotation) is not None]
    if pod.host_network and asked:
        yield Problem(
            Reason.HOST_NETWORK_LIMIT,
            f"annotation {' and '.join(asked)}: a Pod with hostNetwork: true uses its node's network, which cannot be "
            "limited for one Pod; leave out the annotation or hostNetwork",
        )


def _managed(pod: Pod, reading: _Reading) -> Iterator[Problem]:
    """Beside a limit, also one that is refused, the managed label must be "true"."""
    value = pod.label(MANAGED_LABEL)
    if value not in {None, _MANAGED} and (reading.limits or reading.problems) and not pod.host_network:
        yield Problem(
            Reason.INVALID_MANAGED_LABEL,
            f'label {MANAGED_LABEL}: {quoted(value)} beside a limit should be "{_MANAGED}"; leave it out, the webhook '
            "adds it",
        )
