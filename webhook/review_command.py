"""`python3 -m webhook review`: what the webhook would answer, from standard input, with no cluster.

For authors, CI pipelines and bug reports. An AdmissionReview is answered with the AdmissionReview that the webhook
would send; a Pod, or the Pods of a workload's templates, with what would be changed or refused, in words. The policy
comes from the Namespaces in the input, or from `--network` for a namespace that has no label there. Objects without
Pods are skipped.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from webhook import admission
from webhook.common.contract import (
    NETWORK_LABEL,
    NEVER_OPTED_IN,
    InvalidQuantity,
    Quantity,
    printable,
    quoted,
)
from webhook.common.printing import print_whole
from webhook.documents import Templates, Unreadable, objects, templates
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
# API groups of policies, with those that end so (policies.kyverno.io): their parts of Pods are patterns, no templates.
_POLICIES: Final = ("kyverno.io", "gatekeeper.sh", "admissionregistration.k8s.io")


class Verdict(Enum):
    """What became of an object."""

    ALLOWED = auto()
    REFUSED = auto()
    NEVER_ASKED = auto()
    UNLABELLED = auto()
    ASTRAY = auto()
    """It has a limit, but no Pod."""


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
            return f"namespace {printable(namespace)} does not have the label {NETWORK_LABEL}"
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
        # Python has none where it was closed.
        text = b"" if sys.stdin is None else sys.stdin.buffer.read()
        output, refused = review_text(text, network=args.network)
    except Unreadable as error:
        sys.stderr.write(f"webhook review: {error}\n")
        return UNREADABLE
    if (why := print_whole(output)) is not None:
        sys.stderr.write(f"webhook review: cannot write to standard output: {why}\n")
        return UNREADABLE
    return REFUSED if refused else OK


def review_text(text: bytes, *, network: str | None) -> tuple[str, bool]:
    """What to print for JSON or YAML, and whether something in it is refused. Raises Unreadable."""
    documents = objects(text)
    labels = Labels(dict(_network_labels(documents)), otherwise=network)
    answers = [answer for document in documents for answer in _answers(document, labels)]
    if not answers:
        raise Unreadable("found no Pod, no workload with a template of Pods, and no AdmissionReview in standard input")
    verdicts = {verdict for _, verdict in answers}
    # Exit status 0 would pass for an approval of the manifests. These namespaces may get their labels elsewhere.
    if verdicts - {Verdict.NEVER_ASKED} == {Verdict.ASTRAY}:
        told = "".join(printed for printed, verdict in answers if verdict is Verdict.ASTRAY)
        raise Unreadable(f"reviewed no Pod: {'; '.join(line.strip() for line in told.splitlines())}")
    if Verdict.UNLABELLED in verdicts and verdicts <= {Verdict.NEVER_ASKED, Verdict.UNLABELLED, Verdict.ASTRAY}:
        raise Unreadable(
            f"reviewed nothing, as no Namespace in standard input that has Pods has the label {NETWORK_LABEL}: give "
            "its value with --network if they get it elsewhere"
        )
    return "".join(printed for printed, _ in answers), Verdict.REFUSED in verdicts


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
        found = templates(document)
        for path, template in found.of_pods:
            where = f", {printable(path)}" if len(found.of_pods) > 1 else ""
            pod = pod_of(template, f"the template of {printable(kind)}{where}")
            yield _admitted(pod, _title(document) + where, _namespace(document), labels)
        if found.astray:
            yield _told_astray(document, found, labels)


def _told_astray(document: dict[str, Any], found: Templates, labels: Labels) -> tuple[str, Verdict]:
    """Limits that are of no Pod that is seen: one beside the template, or one that a controller will copy to its Pods.

    One that is invalid is refused, as its Pods would be; no other counts as reviewed. Raises InvalidReview for one that
    is no text.
    """
    title, namespace = f"{_title(document)}, outside of Pods", _namespace(document)
    if reason := labels.skips(namespace):
        return _skipped(title, namespace, reason)
    told, verdict = [], Verdict.ASTRAY
    for path, limits in found.astray:
        where, _, key = printable(f"{document['kind']}.{path}").rpartition(".")
        for annotation, text in (strings_at({key: limits}, key, where) or {}).items():
            about = f"{annotation} in {printable(path)} is of no template of Pods"
            try:
                Quantity.parse(text)
                told.append(f"warning: {about}: it limits nothing, unless a controller copies it to its Pods")
            except InvalidQuantity as error:
                told.append(f"{about}, and if a controller copies it, they are refused: {error}")
                verdict = Verdict.REFUSED
    outcome = "refused" if verdict is Verdict.REFUSED else "not reviewed"
    return _lines(f"{title}: {outcome}", told), verdict


def _is_policy(document: Mapping[str, Any]) -> bool:
    """Whether an object is for a policy engine, or the API server's own."""
    group = str(document.get("apiVersion")).partition("/")[0]
    return f".{group}".endswith(tuple(f".{each}" for each in _POLICIES))


def _admitted(pod: admission.Pod, title: str, namespace: str, labels: Labels) -> tuple[str, Verdict]:
    if reason := labels.skips(namespace):
        return _skipped(title, namespace, reason)
    decision = admission.review(pod, None, labels.policy(namespace))
    if not decision.allowed:
        return _lines(f"{title}: refused", (problem.text for problem in decision.problems)), Verdict.REFUSED
    changes = [_change(operation) for operation in decision.patch if operation.get("value") != {}]
    warnings = [f"warning: {warning}" for warning in decision.warnings]
    title = f"{title}: allowed, {'with these changes' if changes else 'as it is'}"
    return _lines(title, [*changes, *warnings]), Verdict.ALLOWED


def _skipped(title: str, namespace: str, reason: str) -> tuple[str, Verdict]:
    verdict = Verdict.NEVER_ASKED if namespace in NEVER_OPTED_IN else Verdict.UNLABELLED
    return f"{title}: not reviewed, as {reason}\n", verdict


def _title(document: dict[str, Any]) -> str:
    """How an object is called, with its name where that can be read."""
    kind = printable(document["kind"])
    try:
        name = printable(name_of(document, kind))
        return f"{kind} {name}" if kind == "Namespace" else f"{kind} {printable(_namespace(document))}/{name}"
    except InvalidReview:
        return kind


def _namespace(document: dict[str, Any]) -> str:
    kind = printable(document["kind"])
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
