"""What holds for every text and every body, whoever wrote it. Each raises AssertionError where it does not hold.

The fuzzer looks for a counterexample; the unit tests try the corpus.
"""

import base64
import contextlib
import copy
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from tests.unit.webhook.json_patch import applied
from webhook.common.contract import MAXIMUM_BITS_PER_SECOND, MINIMUM_BITS_PER_SECOND, InvalidQuantity, Quantity
from webhook.policy import Policy
from webhook.review import InvalidReview, Outcome, Question, Reviewed, asked, parsed, respond

LONGEST_SENTENCE: Final = 500
# Generous, as the machine may be busy: what is looked for takes seconds, or for ever.
QUANTITY_S: Final = 0.2
REVIEW_S: Final = 1.0
LABELS: Final = ("kube-system.ipvlan", "no dot", None)


def check_quantity(text: str) -> None:
    """A text is a limit that its normal form stands for too, or is refused in a short sentence; in bounded time."""
    begun = time.process_time()
    try:
        limit = Quantity.parse(text)
    except InvalidQuantity as error:
        _check_sentence(error)
        if error.suggestion is not None:
            Quantity.parse(error.suggestion)
    else:
        assert text.isascii()
        assert MINIMUM_BITS_PER_SECOND <= limit.bits_per_second <= MAXIMUM_BITS_PER_SECOND
        assert Quantity.parse(str(limit)) == limit
    assert time.process_time() - begun < QUANTITY_S


def check_review(body: bytes) -> None:
    """A body is answered, or refused in a short sentence, in bounded time; a patch applies, and twice is as once."""
    begun = time.process_time()
    try:
        review = parsed(body)
        with _deeper():
            before = copy.deepcopy(review)
        question = asked(review)
    except InvalidReview as error:
        _check_sentence(error)
    else:
        for label in LABELS:
            answer = _answered(question, label)
            with _deeper():
                _check_answer(review, label, answer)
        with _deeper():
            assert review == before, "admission changed the review"
    assert time.process_time() - begun < REVIEW_S


@contextlib.contextmanager
def _deeper() -> Iterator[None]:
    """What is nested as deeply as the webhook reads, copying and comparing cannot follow otherwise."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10 * before)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def body_of(data: bytes) -> bytes:
    """A body for some bytes of the fuzzer: either these, or a review of a Pod that takes all its texts from them."""
    if data[:1] != b"\x00":
        return data
    chosen = int.from_bytes(data[1:3], "big")
    fields = [text.decode(errors="surrogateescape") for text in data[3:].split(b"\x00")] + [""] * 8
    keys = ("kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth", "v1.multus-cni.io/default-network")
    new = {key: fields[index] for index, key in enumerate(keys) if chosen >> index & 1}
    old = {key: fields[index + 3] for index, key in enumerate(keys) if chosen >> index + 3 & 1}
    labels = {"ipvlan-bandwidth.io/managed": fields[6]}
    request = {
        "uid": fields[7],
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "operation": "UPDATE" if chosen >> 6 & 1 else "CREATE",
        "namespace": "shop",
        "object": _pod(new, labels, chosen >> 7),
        "oldObject": _pod(old, labels, chosen >> 11),
    }
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


def _check_sentence(error: Exception) -> None:
    assert len(str(error)) < LONGEST_SENTENCE
    assert str(error).isprintable()


def _pod(annotations: dict[str, str], labels: dict[str, str], chosen: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "cart"}
    if annotations or chosen & 1:
        metadata["annotations"] = annotations
    if chosen & 2:
        metadata["labels"] = labels
    if chosen & 4:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {"metadata": metadata, "spec": {"hostNetwork": True} if chosen & 8 else {}}


def _check_answer(review: Any, label: str | None, once: Reviewed) -> None:
    response = json.loads(json.dumps(once.response))["response"]
    assert response["allowed"] is (once.outcome is not Outcome.REFUSED)
    assert ("patch" in response) is (once.outcome is Outcome.MUTATED)
    if once.outcome is Outcome.REFUSED:
        assert response["status"]["message"].isprintable()
    if once.outcome is Outcome.MUTATED:
        patch = json.loads(base64.b64decode(response["patch"], validate=True))
        changed = copy.deepcopy(review)
        changed["request"]["object"] = applied(patch, review["request"]["object"])
        twice = _answered(asked(changed), label)
        assert twice.outcome is Outcome.ALLOWED, f"twice is not as once: {twice.response}"


def _answered(question: Question, label: str | None) -> Reviewed:
    return respond(question, Policy.from_label(question.namespace, label))
