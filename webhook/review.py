"""AdmissionReview in, AdmissionReview out: the webhook's answer as a pure function of the request and the policies.

The format is `admission.k8s.io/v1` (Kubernetes documentation, "Dynamic Admission Control"). No document is trusted: one
without the shape of a review of a Pod raises `InvalidReview`, which says where it differs in a sentence of bounded
length, and no text that a stranger chose freely becomes a path or a metric's label.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from webhook import admission
from webhook.admission import Decision, Pod
from webhook.common.contract import (
    DEFAULT_NETWORK_ANNOTATION,
    LONGEST_NAME,
    MANAGED_LABEL,
    MAXIMUM_LENGTH,
    MIRROR_ANNOTATION,
    Direction,
    quoted,
)
from webhook.policy import DNS_LABEL, Policy

API_VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"

# Decoded values take up to 25 times the memory of their text: 8 MiB of `[[],[],...` would fill the webhook's memory.
# Two Pods (of an UPDATE) of etcd's largest size that consist of short environment variables have this many.
MOST_VALUES: Final = 400_000
_VALUES_BEGIN: Final = (b",", b"[", b"{")
# A string, up to the body's end if unclosed, so that none is scanned twice; possessive, so without backtracking.
_TEXT: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_OPERATIONS: Final = frozenset({"CREATE", "UPDATE", "DELETE", "CONNECT"})
_LONGEST_UID: Final = 256  # API servers' have 36 characters
_LONGEST_VALUE: Final = 2 * MAXIMUM_LENGTH
_ANNOTATIONS: Final = (
    *(direction.annotation for direction in Direction),
    DEFAULT_NETWORK_ANNOTATION,
    MIRROR_ANNOTATION,
)


class InvalidReview(ValueError):  # noqa: N818 - it names the document
    """A document that is no AdmissionReview of a Pod: the caller answers 400 with its text."""


class Outcome(StrEnum):
    """What became of a Pod, for logs and metrics."""

    ALLOWED = "allowed"
    MUTATED = "mutated"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Question:
    """What an AdmissionReview asks. Its size is bounded when it needs the policy, as it is kept until that is known.

    `pod` is None where any Pod is allowed, `old` where the Pod is being created.
    """

    uid: str
    operation: str
    namespace: str  # a DNS label
    name: str = ""  # the Pod's, or its generateName and "*"
    pod: Pod | None = None
    old: Pod | None = None

    @property
    def needs_policy(self) -> bool:
        """Whether the answer depends on the Namespace: a running Pod's network never changes."""
        return self.pod is not None and self.old is None


@dataclass(frozen=True, slots=True)
class Reviewed:
    """An answer: the AdmissionReview to send, and what logs and metrics say of it."""

    response: dict[str, Any]
    outcome: Outcome
    operation: str
    namespace: str
    pod: str  # its name, or its generateName and "*"
    reasons: tuple[str, ...]  # `admission.Reason`s, each once, fit for a metric's label; empty unless refused
    message: str  # the refusal as the author reads it; empty unless refused


def parsed(body: bytes | bytearray) -> Any:
    """The JSON of a request's body, in time and memory bounded by its length and MOST_VALUES. Raises InvalidReview.

    Strict where Python's reader is lenient: UTF-8 alone (RFC 8259, section 8.1), no NaN or Infinity. Of duplicate names
    in an object the last counts, as in the API server's own reader (encoding/json): both see the same Pod.
    """
    if len(body) > MOST_VALUES and _has_too_many_values(body):
        raise InvalidReview(f"the request's body has more than {MOST_VALUES} values in it")
    try:
        return _DECODER.decode(body.decode())
    except InvalidReview:
        raise
    except UnicodeDecodeError as error:
        raise InvalidReview(f"the request's body is no JSON: not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise InvalidReview(f"the request's body is no JSON: {error}") from error
    except RecursionError as error:
        raise InvalidReview("the request's body is no JSON that can be read: it is nested too deeply") from error
    except ValueError as error:  # Python reads no more than 4300 digits
        raise InvalidReview("the request's body is no JSON that can be read: it has too long a number") from error


def _has_too_many_values(body: bytes | bytearray) -> bool:
    """Counts what begins values, outside of strings; in strings too if these alone are more than MOST_VALUES."""
    count = _beginnings(body)
    if count <= MOST_VALUES or body.count(b'"') - body.count(b'\\"') > 2 * MOST_VALUES:
        return count > MOST_VALUES
    return count - sum(_beginnings(text.group()) for text in _TEXT.finditer(body)) > MOST_VALUES


def _beginnings(body: bytes | bytearray) -> int:
    return sum(body.count(beginning) for beginning in _VALUES_BEGIN)


def asked(review: object) -> Question:
    """What an AdmissionReview asks. Raises InvalidReview for a document that is none, or not of a Pod."""
    request = _request(review)
    uid = string_at(request, "uid", "request")
    if len(uid) > _LONGEST_UID:
        raise InvalidReview(f"request.uid should have at most {_LONGEST_UID} characters, and has {len(uid)}")
    operation = string_at(request, "operation", "request")
    if operation not in _OPERATIONS:
        raise InvalidReview(
            f"request.operation should be CREATE, UPDATE, DELETE or CONNECT, and is {quoted(operation)}"
        )
    namespace = string_at(request, "namespace", "request")
    if DNS_LABEL.fullmatch(namespace) is None:
        raise InvalidReview(f"request.namespace should be the name of a Namespace, and is {quoted(namespace)}")
    subresource = string_at(request, "subResource", "request") if request.get("subResource") is not None else ""
    question = Question(uid, operation, namespace)
    # A subresource's object may be of another kind, and a deletion has none: neither changes a limit.
    if operation in {"DELETE", "CONNECT"} or subresource:
        return question
    _check_kind(request)
    document = object_at(request, "object", "request")
    name, pod = name_of(document, "request.object"), pod_of(document, "request.object")
    if operation == "CREATE":
        return replace(question, name=name, pod=_essence(pod))
    old = pod_of(object_at(request, "oldObject", "request"), "request.oldObject")
    return replace(question, name=name, pod=pod, old=old)


def respond(question: Question, policy: Policy) -> Reviewed:
    """The answer to what an AdmissionReview asks; `policy` is its namespace's, used if `needs_policy`."""
    decision = admission.review(question.pod, question.old, policy) if question.pod is not None else Decision()
    return Reviewed(
        response=_sent(question, answer(decision)),
        outcome=_outcome(decision),
        operation=question.operation,
        namespace=question.namespace,
        pod=question.name,
        reasons=tuple(dict.fromkeys(problem.reason.value for problem in decision.problems)),
        message=decision.message,
    )


def undecided(question: Question, why: str) -> dict[str, Any]:
    """The AdmissionReview to send while the policy cannot be known: a refusal for now, with a reason that people see.

    Of an HTTP error they would see only the status (k8s.io/apimachinery, NewGenericServerResponse).
    """
    return _sent(question, {"allowed": False, "status": _failure("ServiceUnavailable", 503, why)})


def answer(decision: Decision) -> dict[str, Any]:
    """A decision as the fields of an AdmissionResponse, but for its uid."""
    fields: dict[str, Any] = {"allowed": decision.allowed}
    if not decision.allowed:
        fields["status"] = _failure("Invalid", 422, decision.message)
    if decision.patch:
        fields["patchType"] = "JSONPatch"
        fields["patch"] = base64.b64encode(json.dumps(decision.patch).encode()).decode()
    if decision.warnings:
        fields["warnings"] = list(decision.warnings)
    return fields


def _sent(question: Question, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": KIND, "response": {"uid": question.uid, **fields}}


def _failure(reason: str, code: int, message: str) -> dict[str, Any]:
    return {"status": "Failure", "reason": reason, "code": code, "message": message}


def pod_of(document: Mapping[str, Any], where: str) -> Pod:
    """What admission looks at in a Pod's JSON. Raises InvalidReview, which names the field, with `where` before it."""
    metadata = object_at(document, "metadata", where)
    spec = object_at(document, "spec", where)
    host_network = spec.get("hostNetwork")
    if host_network is not None and not isinstance(host_network, bool):
        raise InvalidReview(f"{where}.spec.hostNetwork should be true or false, and is {_kind(host_network)}")
    system = spec.get("os")
    return Pod(
        annotations=strings_at(metadata, "annotations", f"{where}.metadata"),
        labels=strings_at(metadata, "labels", f"{where}.metadata"),
        host_network=host_network is True,
        windows=isinstance(system, dict) and system.get("name") == "windows",
        deleting=metadata.get("deletionTimestamp") is not None,
    )


def name_of(document: Mapping[str, Any], where: str) -> str:
    """An object's name in messages: its name, or its generateName and "*" while it has none; cut when too long."""
    metadata = object_at(document, "metadata", where)
    name = metadata.get("name")
    if isinstance(name, str) and name:
        return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    prefix = metadata.get("generateName")
    return f"{prefix[: LONGEST_NAME - 1]}*" if isinstance(prefix, str) else "*"


def object_at(parent: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    """A member that must be an object. Raises InvalidReview, which names it, with `where` before it."""
    value = parent.get(key)
    if not isinstance(value, dict):
        raise InvalidReview(f"{where}.{key} should be an object, and is {_kind(value)}")
    return value


def string_at(parent: Mapping[str, Any], key: str, where: str) -> str:
    """A member that must be a string. Raises InvalidReview, as `object_at`."""
    value = parent.get(key)
    if not isinstance(value, str):
        raise InvalidReview(f"{where}.{key} should be a string, and is {_kind(value)}")
    return value


def strings_at(parent: Mapping[str, Any], key: str, where: str) -> Mapping[str, str] | None:
    """A member that may be absent and must else be an object of strings. Raises InvalidReview, as `object_at`."""
    value = parent.get(key)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidReview(f"{where}.{key} should be an object, and is {_kind(value)}")
    for name, text in value.items():
        if not isinstance(text, str):
            raise InvalidReview(f"{where}.{key}[{quoted(name)}] should be a string (in quotes), and is {_kind(text)}")
    return value


def _essence(pod: Pod) -> Pod:
    """A Pod that is being created, with only the map entries that admission reads, cut: a longer text is no limit."""
    return replace(
        pod,
        annotations=_kept(pod.annotations, _ANNOTATIONS),
        labels=_kept(pod.labels, (MANAGED_LABEL,)),
    )


def _kept(values: Mapping[str, str] | None, keys: Iterable[str]) -> Mapping[str, str] | None:
    return None if values is None else {key: _cut(key, values[key]) for key in keys if key in values}


def _cut(key: str, text: str) -> str:
    # Blanks name no network, however many there are; beside a name they do not matter.
    return ("".join(text.split()) if key == DEFAULT_NETWORK_ANNOTATION else text)[:_LONGEST_VALUE]


def _outcome(decision: Decision) -> Outcome:
    if not decision.allowed:
        return Outcome.REFUSED
    return Outcome.MUTATED if decision.patch else Outcome.ALLOWED


def _no_number(name: str) -> float:
    raise InvalidReview(f"the request's body is no JSON: it has {name} in it, which is no number there")


# Made once: `json.loads` with an argument makes one each time.
_DECODER: Final = json.JSONDecoder(parse_constant=_no_number)


def _request(review: object) -> Mapping[str, Any]:
    if not isinstance(review, dict):
        raise InvalidReview(f"expected an object of kind {KIND}, got {_kind(review)}")
    found = (review.get("apiVersion"), review.get("kind"))
    if found != (API_VERSION, KIND):
        shown = " and ".join(quoted(part) if isinstance(part, str) else _kind(part) for part in found)
        raise InvalidReview(f"expected apiVersion {API_VERSION} and kind {KIND}, got {shown}")
    return object_at(review, "request", KIND)


def _check_kind(request: Mapping[str, Any]) -> None:
    kind = object_at(request, "kind", "request")
    group = string_at(kind, "group", "request.kind") if kind.get("group") is not None else ""
    found = (group, string_at(kind, "version", "request.kind"), string_at(kind, "kind", "request.kind"))
    if found != ("", "v1", "Pod"):
        shown = quoted("/".join(part for part in found if part))
        raise InvalidReview(f"request is about {shown}, not v1/Pod: the webhook's rules should name pods alone")


def _kind(value: object) -> str:
    """What a value is, in JSON's words."""
    names = {
        type(None): "missing or null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), f"a {type(value).__name__}")
