"""What matters of a Pod, read from the API server's JSON or from the container runtime's NRI call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from reconciler.nri.messages import PodSandbox
from webhook.common.contract import (
    EGRESS_ANNOTATION,
    INGRESS_ANNOTATION,
    MANAGED_LABEL,
    MIRROR_ANNOTATION,
    SOURCE_ANNOTATION,
    Direction,
    Limits,
    Quantity,
    beginning,
)

_API: Final = "api"


@dataclass(frozen=True, slots=True)
class PodView:
    """A Pod as the reconciler sees it: its identity, whether it was admitted, and what its annotations ask for.

    `ingress` and `egress` hold the annotations' text as written; None without an annotation. `started_s` is when its
    first container started, in seconds since the epoch, or a time before that. `running`: one of its containers runs,
    according to the API server; `ended`: all of them have ended, and none is started again. `static`: kubelet runs it
    from a manifest on the node; the API server has only an image of it (a mirror Pod), with another uid.
    """

    uid: str
    namespace: str
    name: str
    managed: bool = False
    ingress: str | None = None
    egress: str | None = None
    host_network: bool = False
    started_s: float | None = None
    running: bool = False
    ended: bool = False
    static: bool = False

    @property
    def annotated(self) -> bool:
        """Whether the Pod asks for a limit at all."""
        return self.ingress is not None or self.egress is not None

    def asked(self, direction: Direction) -> str | None:
        """The annotation of one direction, as written."""
        return self.ingress if direction is Direction.INGRESS else self.egress

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def selector(node: str) -> str:
    """The API server's field selector for a node's Pods, without finished ones that have not been deleted.

    When a Pod finishes, the watch reports it as DELETED, with its last state before.
    """
    return f"spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed"


def from_api(pod: Any) -> PodView | None:
    """Read a Pod from the API server's JSON; None if it is no Pod, or is a mirror Pod, whose Pod kubelet runs itself.

    Takes any JSON: a field that does not have the API's shape counts as absent.
    """
    metadata = _mapping(_mapping(pod).get("metadata"))
    uid, namespace, name = (_text(metadata.get(key)) for key in ("uid", "namespace", "name"))
    annotations = _mapping(metadata.get("annotations"))
    if not (uid and namespace and name) or MIRROR_ANNOTATION in annotations:
        return None
    status = _mapping(pod.get("status"))
    return replace(
        _asked_of(uid, namespace, name, _mapping(metadata.get("labels")), annotations),
        host_network=_mapping(pod.get("spec")).get("hostNetwork") is True,
        started_s=_started(status),
        running=_runs(status),
        ended=metadata.get("deletionTimestamp") is not None and _have_ended(status),
    )


def from_runtime(pod: PodSandbox) -> PodView:
    """Read a Pod as the runtime reports it; one without a network namespace of its own is on the host network."""
    return replace(
        _asked_of(pod.uid, pod.namespace, pod.name, pod.labels, pod.annotations),
        host_network=not pod.netns_path,
        # For each Pod that it runs, kubelet writes the source there: api, file, or http.
        static=pod.annotations.get(SOURCE_ANNOTATION, _API) != _API,
    )


def with_limits(view: PodView, limits: Limits) -> PodView:
    """The Pod as if it was admitted with annotations for these limits."""
    return replace(view, managed=True, ingress=_written(limits.ingress), egress=_written(limits.egress))


def _asked_of(
    uid: str, namespace: str, name: str, labels: Mapping[str, Any], annotations: Mapping[str, Any]
) -> PodView:
    """A Pod with what its labels and annotations ask for."""
    return PodView(
        uid=uid,
        namespace=namespace,
        name=name,
        managed=labels.get(MANAGED_LABEL) == "true",
        ingress=_limit(annotations.get(INGRESS_ANNOTATION)),
        egress=_limit(annotations.get(EGRESS_ANNOTATION)),
    )


def _limit(annotation: Any) -> str | None:
    text = _text(annotation)
    return None if text is None else beginning(text)


def _runs(status: Mapping[str, Any]) -> bool:
    return any(isinstance(state.get("running"), Mapping) for state in _states(status))


def _have_ended(status: Mapping[str, Any]) -> bool:
    states = _states(status)
    return bool(states) and all(isinstance(state.get("terminated"), Mapping) for state in states)


def _states(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [_mapping(container.get("state")) for container in _containers(status)]


def _containers(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    lists = [status.get(kind) for kind in ("initContainerStatuses", "containerStatuses")]
    return [_mapping(container) for each in lists if isinstance(each, list) for container in each]


def _started(status: Mapping[str, Any]) -> float | None:
    """When the first of the reported containers started, or an earlier time (core/v1 ContainerStatus).

    For a restarted container at most the last two starts are reported. Its first start was no later than those, and no
    earlier than kubelet's start of the Pod. The latter is used then: time without limits is better overstated. For a
    start that failed (StartError) kubelet reports the epoch: the container did not run then, but that start is told.
    """
    times: list[float] = []
    for container in _containers(status):
        told = _starts(container)
        times += (at for at in told if at > 0)
        restarts = container.get("restartCount")
        is_first_untold = isinstance(restarts, int) and 0 < restarts >= len(told)
        if is_first_untold and (pod_started_s := _seconds(status.get("startTime"))) is not None:
            times.append(pod_started_s)
    return min(times, default=None)


def _starts(container: Mapping[str, Any]) -> list[float]:
    """When a container last started, and when the time before; the epoch for a start that failed."""
    states = [_mapping(container.get(name)) for name in ("state", "lastState")]
    ran = (_mapping(state.get(name)) for state in states for name in ("running", "terminated"))
    return [at for each in ran if (at := _seconds(each.get("startedAt"))) is not None]


def _seconds(rfc3339: Any) -> float | None:
    """A time in seconds since the epoch; None if it is none."""
    try:
        return datetime.strptime(rfc3339, "%Y-%m-%dT%H:%M:%S%z").timestamp()
    except (TypeError, ValueError):
        return None


def _written(limit: Quantity | None) -> str | None:
    return None if limit is None else str(limit)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
