"""`python3 -m webhook review`: what the webhook would answer, from standard input, with no cluster.

For authors, CI pipelines and bug reports. An AdmissionReview is answered with the AdmissionReview that the webhook
would send; a Pod, or the Pods of a workload's templates, with what would be changed or refused, in words. The policy
comes from the Namespaces in the input, or from `--network` for a namespace that has no label there. Objects without
Pods are skipped.
"""

import argparse
import contextlib
import json
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from webhook import admission
from webhook.common.contract import NETWORK_LABEL, NEVER_OPTED_IN, quoted
from webhook.jsonpatch import Operation, unescape
from webhook.policy import Policy
from webhook.review import (
    KIND,
    InvalidReview,
    Outcome,
    asked,
    name_of,
    object_at,
    pod_of,
    respond,
    string_at,
    strings_at,
)

OK: Final = 0
REFUSED: Final = 1
UNREADABLE: Final = 2
_DEPTH: Final = 8
# API groups of policies, with those that end so (policies.kyverno.io): their parts of Pods are patterns, no templates.
_POLICIES: Final = ("kyverno.io", "gatekeeper.sh", "admissionregistration.k8s.io")
# As in go-yaml, which `kubectl` uses: PyYAML requires a point and a signed exponent, and reads 1.5e8 as a text.
_FLOAT: Final = re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9][0-9_]*)?$")


class Verdict(Enum):
    """What became of an object."""

    ALLOWED = auto()
    REFUSED = auto()
    NEVER_ASKED = auto()
    UNLABELLED = auto()


class Unreadable(ValueError):  # noqa: N818 - it names the input
    """Input that holds nothing to review, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What is known of Namespaces' network labels: those in the input, and one value for all others."""

    by_namespace: Mapping[str, str | None]
    otherwise: str | None

    def policy(self, namespace: str) -> Policy:
        """The policy of a namespace."""
        return Policy.from_label(namespace, self._label(namespace))

    def skips(self, namespace: str) -> str | None:
        """Why the API server would not call the webhook for a Pod of this namespace; None if it would."""
        if namespace in NEVER_OPTED_IN:
            return f"namespace {namespace} is never opted in"
        if namespace in self.by_namespace and self._label(namespace) is None:
            return f"namespace {namespace} does not have the label {NETWORK_LABEL}"
        return None

    def _label(self, namespace: str) -> str | None:
        label = self.by_namespace.get(namespace)
        return self.otherwise if label is None else label


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument(
        "--network",
        metavar="NAMESPACE.NAME",
        help=f"the value of the label {NETWORK_LABEL} for namespaces that have none in the input (default: no label)",
    )


def main(args: argparse.Namespace) -> int:
    """Review standard input. The exit status: 0 all allowed, 1 something refused, 2 nothing could be reviewed."""
    try:
        output, refused = review_text(sys.stdin.buffer.read(), network=args.network)
    except Unreadable as error:
        sys.stderr.write(f"webhook review: {error}\n")
        return UNREADABLE
    sys.stdout.write(output)
    return REFUSED if refused else OK


def review_text(text: bytes, *, network: str | None) -> tuple[str, bool]:
    """What to print for JSON or YAML, and whether something in it is refused. Raises Unreadable."""
    documents = [document for loaded in _load(text) for document in _flat(loaded, _DEPTH)]
    labels = Labels(dict(_network_labels(documents)), otherwise=network)
    answers = [answer for document in documents for answer in _answers(document, labels)]
    if not answers:
        raise Unreadable("found no Pod, no workload with a template of Pods, and no AdmissionReview in standard input")
    verdicts = {verdict for _, verdict in answers}
    # These namespaces may get their labels elsewhere: exit status 0 would pass for an approval of the manifests.
    if verdicts - {Verdict.NEVER_ASKED} == {Verdict.UNLABELLED}:
        raise Unreadable(
            f"reviewed nothing, as no Namespace in standard input that has Pods has the label {NETWORK_LABEL}: give "
            "its value with --network if they get it elsewhere"
        )
    return "".join(printed for printed, _ in answers), Verdict.REFUSED in verdicts


def _load(text: bytes) -> Sequence[Any]:
    """The documents of a text, JSON or YAML."""
    try:
        return [json.loads(text)]
    except ValueError:
        pass  # then it is YAML, or nothing
    except RecursionError as error:
        raise Unreadable("standard input is nested too deeply") from error
    try:
        import yaml  # noqa: PLC0415 - not needed for JSON, as in the API server's audit logs
    except ImportError as error:
        raise Unreadable(
            "standard input is no JSON, and to read YAML this Python lacks PyYAML: install it (Debian: python3-yaml; "
            "pip: pyyaml), or give JSON, as `kubectl ... -o json` writes it"
        ) from error

    class Loader(yaml.SafeLoader):
        """YAML 1.1 as `kubectl` reads it: 1e8 and 1.5e8 are numbers, a date, a time and "=" are texts."""

    def as_written(loader: Loader, node: yaml.ScalarNode) -> Any:
        return loader.construct_scalar(node)

    def number(loader: Loader, node: yaml.ScalarNode) -> Any:
        # 1:30 is 90 in YAML 1.1 (base 60), which go-yaml does not implement.
        return node.value if ":" in node.value else yaml.SafeLoader.yaml_constructors[node.tag](loader, node)

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, [*"-+.0123456789"])
    for tag in ("timestamp", "value"):
        Loader.add_constructor(f"tag:yaml.org,2002:{tag}", as_written)
    for tag in ("int", "float"):
        Loader.add_constructor(f"tag:yaml.org,2002:{tag}", number)
    try:
        return list(yaml.load_all(text, Loader=Loader))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an invalid number, as 0x_
        raise Unreadable(f"standard input is neither JSON nor YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise Unreadable("standard input is nested too deeply") from error


def _flat(document: Any, depth: int) -> Iterator[dict[str, Any]]:
    """The objects of a document, also those in Lists."""
    if document is None:
        return
    said = document.get("kind") if isinstance(document, dict) else None
    kind = said if isinstance(said, str) else None
    if kind in {"List", "PodList", "NamespaceList"} and isinstance(document.get("items"), list) and depth:
        for item in document["items"]:
            # The items of a PodList that the API server sent have no kind of their own.
            yield from _flat({"kind": kind.removesuffix("List"), **item} if isinstance(item, dict) else item, depth - 1)
    elif kind is not None and kind != "List":
        yield document
    else:
        if kind is None:
            raise Unreadable("this is not a Kubernetes object: it has no `kind`")
        raise Unreadable(f"kind is {quoted(kind)}: expected objects of Kubernetes, or a List of them")


def _templates(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The templates of a workload's Pods, and where in it they are, which custom resources choose for themselves.

    A `spec.containers` of the object's own is none: there, operators' objects have containers to add to Pods. With
    YAML's aliases an object can contain itself, so each is looked at once.
    """
    ahead: deque[tuple[str, Any]] = deque([("", document)])
    seen: set[int] = set()
    while ahead:
        path, found = ahead.popleft()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, list):
            ahead.extend((f"{path}[{index}]", item) for index, item in enumerate(found))
        elif isinstance(found, dict):
            if path and isinstance(found.get("spec"), dict) and "containers" in found["spec"]:
                # A template needs no metadata, and no Pod takes a name in it.
                yield path, {**found, "metadata": {} if (metadata := found.get("metadata")) is None else metadata}
            else:
                ahead.extend((f"{path}.{key}".lstrip("."), value) for key, value in found.items())


def _answers(document: dict[str, Any], labels: Labels) -> list[tuple[str, Verdict]]:
    """What to print for an object, and its verdict: none for an object without Pods, several for several templates.

    An object of the wrong shape, as with a limit that is a number, is refused, as by the API server itself; the others
    are still reviewed.
    """
    try:
        return list(_reviewed(document, labels))
    except InvalidReview as error:
        return [(_lines(f"{_title(document)}: refused", [str(error)]), Verdict.REFUSED)]


def _reviewed(document: dict[str, Any], labels: Labels) -> Iterator[tuple[str, Verdict]]:
    """As `_answers`. Raises InvalidReview for an object of the wrong shape."""
    kind = document["kind"]
    if kind == "Namespace":
        _network_label(document)
    elif kind == KIND:
        question = asked(document)
        reviewed = respond(question, labels.policy(question.namespace))
        verdict = Verdict.REFUSED if reviewed.outcome is Outcome.REFUSED else Verdict.ALLOWED
        yield json.dumps(reviewed.response, indent=2) + "\n", verdict
    elif kind == "Pod":
        pod = pod_of(document, kind)
        yield _admitted(pod, _title(document), _namespace(document), labels)
    elif not _is_policy(document):
        templates = list(_templates(document))
        for path, template in templates:
            where = f", {path}" if len(templates) > 1 else ""
            pod = pod_of(template, f"the template of {kind}{where}")
            yield _admitted(pod, _title(document) + where, _namespace(document), labels)


def _is_policy(document: Mapping[str, Any]) -> bool:
    """Whether an object is for a policy engine, or the API server's own."""
    group = str(document.get("apiVersion")).partition("/")[0]
    return f".{group}".endswith(tuple(f".{each}" for each in _POLICIES))


def _admitted(pod: admission.Pod, title: str, namespace: str, labels: Labels) -> tuple[str, Verdict]:
    if reason := labels.skips(namespace):
        verdict = Verdict.NEVER_ASKED if namespace in NEVER_OPTED_IN else Verdict.UNLABELLED
        return f"{title}: not reviewed, as {reason}\n", verdict
    decision = admission.review(pod, None, labels.policy(namespace))
    if not decision.allowed:
        return _lines(f"{title}: refused", (problem.text for problem in decision.problems)), Verdict.REFUSED
    changes = [_change(operation) for operation in decision.patch if operation.get("value") != {}]
    warnings = [f"warning: {warning}" for warning in decision.warnings]
    title = f"{title}: allowed, {'with these changes' if changes else 'as it is'}"
    return _lines(title, [*changes, *warnings]), Verdict.ALLOWED


def _title(document: dict[str, Any]) -> str:
    """How an object is called, with its name where that can be read."""
    kind = document["kind"]
    try:
        name = name_of(document, kind)
        return f"{kind} {name}" if kind == "Namespace" else f"{kind} {_namespace(document)}/{name}"
    except InvalidReview:
        return str(kind)


def _namespace(document: dict[str, Any]) -> str:
    kind = document["kind"]
    metadata = object_at(document, "metadata", kind)
    return string_at(metadata, "namespace", f"{kind}.metadata") if metadata.get("namespace") else "default"


def _network_labels(documents: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str | None]]:
    """The network labels of the Namespaces among the documents. An invalid one is reported where it is reviewed."""
    for document in documents:
        if document["kind"] == "Namespace":
            with contextlib.suppress(InvalidReview):
                yield name_of(document, "Namespace"), _network_label(document)


def _network_label(namespace: Mapping[str, Any]) -> str | None:
    metadata = object_at(namespace, "metadata", "Namespace")
    return (strings_at(metadata, "labels", "Namespace.metadata") or {}).get(NETWORK_LABEL)


def _change(operation: Operation) -> str:
    """An operation of our own patches, in words."""
    _, _, kind, key = operation["path"].split("/")
    return f"set {kind.removesuffix('s')} {unescape(key)}: {quoted(operation['value'])}"


def _lines(title: str, details: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in (title, *(f"  {detail}" for detail in details)))
