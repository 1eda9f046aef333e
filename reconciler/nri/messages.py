"""NRI's messages, as far as this plugin reads or writes them; all other fields are skipped.

Field numbers: containerd/nri v0.12.3, pkg/api/api.proto (package nri.pkg.api.v1alpha1).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from reconciler.nri.errors import ProtocolError
from reconciler.nri.protobuf import Fields, integer_field, scan, text_field
from webhook.common.contract import EGRESS_ANNOTATION, INGRESS_ANNOTATION, MANAGED_LABEL, SOURCE_ANNOTATION, beginning

PLUGIN_SERVICE: Final = "nri.pkg.api.v1alpha1.Plugin"
RUNTIME_SERVICE: Final = "nri.pkg.api.v1alpha1.Runtime"

MAX_PODS: Final = 65_536
"""Far above what a node holds, dead sandboxes included; a bound on memory, not on nodes."""

# The only labels and annotations that are read: a Pod's author may have written tens of thousands.
LABELS: Final = (MANAGED_LABEL,)
ANNOTATIONS: Final = (INGRESS_ANNOTATION, EGRESS_ANNOTATION, SOURCE_ANNOTATION)


class Hook(Enum):
    """A Pod's events that can be subscribed to: the method the runtime calls, and its number in enum Event."""

    RUN_POD_SANDBOX = ("RunPodSandbox", 1)
    STOP_POD_SANDBOX = ("StopPodSandbox", 2)
    REMOVE_POD_SANDBOX = ("RemovePodSandbox", 3)

    def __init__(self, method: str, event: int) -> None:
        self.method = method
        self.event = event

    @classmethod
    def of_method(cls, method: str) -> "Hook | None":
        """The hook that a call's method names."""
        return next((hook for hook in cls if hook.method == method), None)

    @classmethod
    def of_event(cls, event: int) -> "Hook | None":
        """The hook of an event's number."""
        return next((hook for hook in cls if hook.event == event), None)


@dataclass(frozen=True, slots=True)
class PodSandbox:
    """A Pod's sandbox as the runtime knows it. One Pod (uid) has another sandbox (id) each time it is recreated.

    `netns_path` is "" for a hostNetwork Pod, and for a sandbox whose network namespace is gone: containerd 2.4 leaves
    it out once the path no longer exists (internal/cri/nri/nri_api_linux.go, GetLinuxNamespaces), so at removal, and
    for stopped sandboxes in the replay.

    Only labels and annotations that the project reads are kept, each cut where it is certain to be too long.
    """

    id: str
    name: str
    uid: str
    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    netns_path: str = ""

    @classmethod
    def decode(cls, data: bytes) -> "PodSandbox":
        """Raises ProtocolError."""
        fields = Fields(data)
        linux = Fields(fields.message(8))
        namespaces = (Fields(namespace) for namespace in linux.each(5))
        return cls(
            id=fields.text(1),
            name=fields.text(2),
            uid=fields.text(3),
            namespace=fields.text(4),
            labels=_cut(fields.text_map(5, LABELS)),
            annotations=_cut(fields.text_map(6, ANNOTATIONS)),
            netns_path=next((each.text(2) for each in namespaces if each.text(1) == "network"), ""),
        )


@dataclass(frozen=True, slots=True)
class Configure:
    """What the runtime says of itself once it has accepted the plugin, and how long it waits for an answer."""

    runtime_name: str
    runtime_version: str
    request_timeout_ms: int

    @classmethod
    def decode(cls, data: bytes) -> "Configure":
        """Raises ProtocolError."""
        fields = Fields(data)
        return cls(fields.text(2), fields.text(3), fields.integer(5))


@dataclass(frozen=True, slots=True)
class Synchronize:
    """A chunk of the replay of all Pods; `more` says that others follow. Containers are left out.

    `pods` are for PodSandbox.decode: a chunk must be answered sooner than its Pods could be decoded.
    """

    pods: tuple[bytes, ...]
    more: bool

    @classmethod
    def decode(cls, data: bytes) -> "Synchronize":
        """Raises ProtocolError, also for more than MAX_PODS."""
        pods: list[bytes] = []
        more = False
        for number, value in scan(data):
            if number == 1 and isinstance(value, bytes):
                if len(pods) == MAX_PODS:
                    raise ProtocolError(f"NRI: more than {MAX_PODS} Pods in one Synchronize")
                pods.append(value)
            elif number == 3 and isinstance(value, int):  # noqa: PLR2004 - its number in the schema
                more = bool(value)
        return cls(tuple(pods), more)


def _cut(texts: Mapping[str, str]) -> Mapping[str, str]:
    return {key: beginning(text) for key, text in texts.items()}


def decode_pod(data: bytes) -> PodSandbox:
    """The Pod of RunPodSandboxRequest, StopPodSandboxRequest and RemovePodSandboxRequest, alike in this.

    Raises ProtocolError, also when there is none.
    """
    return _pod_in(Fields(data), 1)


def decode_state_change(data: bytes) -> tuple[Hook | None, PodSandbox]:
    """The Pod of StateChangeEvent and its hook; None for an event not subscribed to. Raises ProtocolError."""
    fields = Fields(data)
    return Hook.of_event(fields.integer(1)), _pod_in(fields, 2)


def _pod_in(fields: Fields, number: int) -> PodSandbox:
    if not fields.each(number):
        raise ProtocolError("NRI: a Pod's event without a Pod")
    return PodSandbox.decode(fields.message(number))


def encode_register_plugin(name: str, index: str) -> bytes:
    """RegisterPluginRequest: a name of letters, digits and any of '-_.+', and an index of two digits."""
    return text_field(1, name) + text_field(2, index)


def encode_configure_response() -> bytes:
    """ConfigureResponse: the subscribed events, one bit each."""
    return integer_field(2, sum(1 << hook.event - 1 for hook in Hook))


def encode_synchronize_response(*, more: bool) -> bytes:
    """SynchronizeResponse: echoing `more` tells the runtime that this plugin takes chunks."""
    return integer_field(2, int(more))
