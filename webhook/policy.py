"""What a Namespace decides for its Pods. Today that is the network to inject, by its label."""

import re
from dataclasses import dataclass
from typing import Final, Self

from webhook.common.contract import NETWORK_LABEL, quoted

# RFC 1123 as k8s.io/apimachinery/pkg/util/validation has it: a namespace's name is a label, other names are subdomains.
DNS_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
# Of a label's value, by the same package. A Namespace's manifest may have a longer one, which no API server takes.
LONGEST_LABEL: Final = 63
_SHAPE: Final = (
    "NAMESPACE.NAME of a NetworkAttachmentDefinition in lower case, for example "
    "kube-system.ipvlan for ipvlan in kube-system"
)


@dataclass(frozen=True, slots=True)
class Policy:
    """The network that a Namespace's Pods get, as `namespace/name`; or what is wrong with its label; or neither."""

    network: str | None = None
    problem: str | None = None

    @classmethod
    def from_label(cls, namespace: str, value: str | None) -> Self:
        """The policy that the network label's value stands for in `namespace`; None is a Namespace without the label.

        An invalid value is kept as `problem`: a typo must not silently put Pods on another network. So is a name with a
        dot: Kubernetes allows it, but Multus fails on it at each start of a Pod (pkg/k8sclient,
        parsePodNetworkObjectName).
        """
        if value is None:
            return cls()
        network_namespace, dot, name = value.partition(".")
        if not dot:
            return cls(problem=_problem(namespace, value, "has no dot in it"))
        for part in (network_namespace, *name.split(".")):
            if DNS_LABEL.fullmatch(part) is None:
                return cls(problem=_problem(namespace, value, f"is made of DNS names, and {quoted(part)} is none"))
        if "." in name:
            what = (
                f"names a NetworkAttachmentDefinition {quoted(name)}, which Multus does not read, as there is a dot in "
                "its name: give it a name without dots"
            )
            return cls(problem=_problem(namespace, value, what))
        if len(value) > LONGEST_LABEL:
            what = f"has {len(value)} characters, and a label can have {LONGEST_LABEL}: give either a shorter name"
            return cls(problem=_problem(namespace, value, what))
        return cls(network=f"{network_namespace}/{name}")


def _problem(namespace: str, value: str, what: str) -> str:
    return f"label {NETWORK_LABEL} of namespace {quoted(namespace)}: {quoted(value)} {what}; it should be {_SHAPE}"
