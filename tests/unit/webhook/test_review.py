"""AdmissionReview to decision and back."""

import base64
import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.webhook.json_patch import applied
from tests.unit.webhook.objects import pod, review_of
from webhook.common.contract import DEFAULT_NETWORK_ANNOTATION, EGRESS_ANNOTATION, INGRESS_ANNOTATION, MANAGED_LABEL
from webhook.policy import Policy
from webhook.review import InvalidReview, Outcome, Reviewed, asked, parsed, respond


def answered(review: object, label: str | None = "kube-system.ipvlan") -> Reviewed:
    question = asked(review)
    return respond(question, Policy.from_label(question.namespace, label))


def patch_of(reviewed: Reviewed) -> list[dict[str, Any]]:
    response = reviewed.response["response"]
    assert response["patchType"] == "JSONPatch"
    patch: list[dict[str, Any]] = json.loads(base64.b64decode(response["patch"], validate=True))
    return patch


def test_an_admitted_pod_s_answer_carries_the_uid_and_a_patch_that_the_api_server_can_apply() -> None:
    document = pod({INGRESS_ANNOTATION: "0.1G"})
    reviewed = answered(review_of(document))
    assert reviewed.response["apiVersion"] == "admission.k8s.io/v1"
    assert reviewed.response["kind"] == "AdmissionReview"
    assert reviewed.response["response"]["uid"] == "705ab4f5-6393-11e8-b7cc-42010a800002"
    assert reviewed.response["response"]["allowed"] is True
    metadata = applied(patch_of(reviewed), document)["metadata"]
    assert metadata["annotations"] == {
        INGRESS_ANNOTATION: "100M",
        DEFAULT_NETWORK_ANNOTATION: "kube-system/ipvlan",
    }
    assert metadata["labels"] == {MANAGED_LABEL: "true"}
    assert (reviewed.outcome, reviewed.reasons, reviewed.message) == (Outcome.MUTATED, (), "")


def test_an_answer_without_changes_has_no_patch() -> None:
    reviewed = answered(review_of(pod()), label=None)
    assert reviewed.response["response"] == {"uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "allowed": True}
    assert reviewed.outcome is Outcome.ALLOWED


def test_a_refusal_carries_the_message_and_what_logs_and_metrics_say_of_it() -> None:
    document = pod({INGRESS_ANNOTATION: "100m", EGRESS_ANNOTATION: "100Mbps"}, name=None, generateName="cart-")
    reviewed = answered(review_of(document))
    response = reviewed.response["response"]
    assert response["allowed"] is False
    assert response["status"] == {
        "status": "Failure",
        "reason": "Invalid",
        "code": 422,
        "message": reviewed.message,
    }
    assert "patch" not in response
    assert 'did you mean "100M"?' in reviewed.message
    assert reviewed.outcome is Outcome.REFUSED
    assert reviewed.reasons == ("InvalidBandwidth",)
    assert (reviewed.operation, reviewed.namespace, reviewed.pod) == ("CREATE", "shop", "cart-*")


def test_warnings_reach_the_author() -> None:
    reviewed = answered(
        review_of(
            pod({INGRESS_ANNOTATION: "100m", EGRESS_ANNOTATION: "1M"}),
            old=pod({INGRESS_ANNOTATION: "100m"}),
            operation="UPDATE",
        )
    )
    (warning,) = reviewed.response["response"]["warnings"]
    assert "ingress-bandwidth" in warning


def test_an_update_is_compared_with_the_old_pod() -> None:
    bad = {INGRESS_ANNOTATION: "100m"}
    assert answered(review_of(pod(bad, labels={"a": "b"}), old=pod(bad), operation="UPDATE")).outcome is Outcome.ALLOWED
    assert answered(review_of(pod(bad), old=pod(), operation="UPDATE")).outcome is Outcome.REFUSED
    leaving = pod(bad, deletionTimestamp="2026-01-01T00:00:00Z")
    assert answered(review_of(leaving, old=pod(), operation="UPDATE")).outcome is Outcome.ALLOWED


def test_host_network_is_read_from_the_spec() -> None:
    document = pod({INGRESS_ANNOTATION: "1M"})
    document["spec"]["hostNetwork"] = True
    assert answered(review_of(document)).reasons == ("HostNetworkLimit",)


@pytest.mark.parametrize(
    ("system", "warned"), [({"name": "windows"}, 1), ({"name": "linux"}, 0), ({}, 0), (None, 0), ("windows", 0)]
)
def test_the_operating_system_is_read_from_the_spec(system: object, warned: int) -> None:
    document = pod({INGRESS_ANNOTATION: "1M"})
    document["spec"]["os"] = system
    assert len(answered(review_of(document)).response["response"].get("warnings", [])) == warned


@pytest.mark.parametrize(
    "review",
    [
        review_of(None, operation="DELETE"),
        review_of({"kind": "PodExecOptions"}, operation="CONNECT", subResource="exec"),
        review_of({"kind": "Binding"}, operation="CREATE", subResource="binding"),
    ],
)
def test_deletions_and_subresources_pass(review: dict[str, Any]) -> None:
    reviewed = answered(review)
    assert reviewed.outcome is Outcome.ALLOWED
    assert reviewed.pod == ""


def test_a_pod_that_has_no_name_yet_is_called_by_what_is_known() -> None:
    assert answered(review_of(pod(name=""))).pod == "*"


def test_only_a_creation_needs_the_policy_of_its_namespace() -> None:
    questions = [
        asked(review_of(pod())),
        asked(review_of(pod(), old=pod(), operation="UPDATE")),
        asked(review_of(None, old=pod(), operation="DELETE")),
        asked(review_of(None, subResource="eviction")),
    ]
    assert {question.namespace for question in questions} == {"shop"}
    assert [question.needs_policy for question in questions] == [True, False, False, False]


def test_of_a_creation_no_more_is_kept_than_admission_looks_at() -> None:
    annotations = {INGRESS_ANNOTATION: "1" * 10**6, "other": "x" * 10**6}
    document = pod(annotations, labels={"a" * 100: "b", MANAGED_LABEL: "c" * 10**6}, name="d" * 10**6)
    question = asked(review_of(document))
    assert len(repr(question)) < 2000
    assert question.pod is not None
    assert question.pod.annotation(INGRESS_ANNOTATION) is not None
    assert "is longer than the maximum of 64 characters" in answered(review_of(document)).message


def without(path: str) -> dict[str, Any]:
    review = copy.deepcopy(review_of(pod()))
    *parents, last = path.split(".")
    target = review
    for parent in parents:
        target = target[parent]
    del target[last]
    return review


def with_object(**fields: Any) -> dict[str, Any]:
    return review_of({**pod(), **fields})


@pytest.mark.parametrize(
    ("review", "what"),
    [
        ([], "expected an object of kind AdmissionReview, got a list"),
        (None, "got missing or null"),
        (
            {},
            "expected apiVersion admission.k8s.io/v1 and kind AdmissionReview, got missing or null and missing or null",
        ),
        (
            {**review_of(pod()), "apiVersion": "admission.k8s.io/v1beta1"},
            'got "admission.k8s.io/v1beta1" and "AdmissionReview"',
        ),
        (without("request"), "AdmissionReview.request should be an object, and is missing or null"),
        (without("request.uid"), "request.uid should be a string"),
        (without("request.namespace"), "request.namespace should be a string"),
        (without("request.operation"), "request.operation should be a string"),
        (without("request.kind"), "request.kind should be an object"),
        (review_of(pod(), uid="x" * 257), "request.uid should have at most 256 characters, and has 257"),
        (review_of(pod(), operation="PATCH"), 'should be CREATE, UPDATE, DELETE or CONNECT, and is "PATCH"'),
        (review_of(pod(), namespace="../x"), 'request.namespace should be the name of a Namespace, and is "../x"'),
        (review_of(pod(), subResource=1), "request.subResource should be a string, and is a number"),
        (review_of(pod(), kind={"version": "v1"}), "request.kind.kind should be a string, and is missing or null"),
        (
            review_of(pod(), kind={"group": "apps", "version": "v1", "kind": "Deployment"}),
            'about "apps/v1/Deployment", not v1/Pod',
        ),
        (review_of(None), "request.object should be an object, and is missing or null"),
        (review_of(pod(), operation="UPDATE"), "request.oldObject should be an object"),
        (with_object(metadata="x"), "request.object.metadata should be an object, and is a string"),
        (with_object(spec=None), "request.object.spec should be an object"),
        (with_object(spec={"hostNetwork": "yes"}), "request.object.spec.hostNetwork should be true or false"),
        (with_object(metadata={"labels": []}), "request.object.metadata.labels should be an object, and is a list"),
        (
            with_object(metadata={"annotations": {INGRESS_ANNOTATION: 100}}),
            'metadata.annotations["kubernetes.io/ingress-bandwidth"] should be a string (in quotes), and is a number',
        ),
        (with_object(metadata={"annotations": {"x": True}}), "and is a boolean"),
        (with_object(metadata={"annotations": {"x": 1.5}}), "and is a number"),
        (with_object(metadata={"annotations": {"x": {}}}), "and is an object"),
        (with_object(metadata={"annotations": {"x": b""}}), "and is a bytes"),
    ],
)
def test_a_document_of_another_shape_is_told_where_it_differs(review: object, what: str) -> None:
    with pytest.raises(InvalidReview) as caught:
        answered(review)
    assert what in str(caught.value)


def test_a_body_is_read_as_json() -> None:
    assert parsed(bytearray(b'{"a": [1, 2.5, "\xc3\xa9", "\\ud800"], "a": {"b": null}}')) == {"a": {"b": None}}


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "no JSON: Expecting value"),
        (b"\xff", "no JSON: not UTF-8 at byte 0"),
        (b"[Infinity]", "it has Infinity in it, which is no number there"),
        (b"9" * 5000, "too long a number"),
        (b"[" * 10**5, "nested too deeply"),
        (b"," * 400_001, "more than 400000 values"),
    ],
)
def test_a_body_that_is_no_json_is_told_why(body: bytes, what: str) -> None:
    with pytest.raises(InvalidReview, match=what):
        parsed(body)


def test_names_of_any_length_are_cut() -> None:
    assert answered(review_of(pod(name="x" * 1000))).pod == "x" * 252 + "…"
    assert answered(review_of(pod(name=None, generateName="x" * 1000))).pod == "x" * 252 + "*"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["uid", "kind", "namespace", "operation", "object", "oldObject", "subResource"])
POD_FIELDS = st.sampled_from(["metadata", "spec"])


@given(FIELDS, JSON, POD_FIELDS, JSON)
def test_no_document_breaks_it(field: str, value: object, pod_field: str, pod_value: object) -> None:
    request = review_of({**pod(), pod_field: pod_value}, **{field: value})
    for review in (value, request, {**request, field: value}):
        with contextlib.suppress(InvalidReview):
            json.dumps(answered(review).response)


@pytest.mark.parametrize(
    ("written", "named"),
    [(" " * 200, False), ("[" + " " * 200 + "]", False), (" " * 200 + "mine", True), ('[{"name": "mine"}]', True)],
    ids=["blanks", "an empty list", "a name behind blanks", "a list"],
)
def test_a_default_network_of_any_length_is_the_author_s_if_it_names_one(written: str, named: bool) -> None:
    document = pod({DEFAULT_NETWORK_ANNOTATION: written})
    reviewed = answered(review_of(document))
    after = document if named else applied(patch_of(reviewed), document)
    assert (reviewed.outcome is Outcome.ALLOWED) is named
    assert after["metadata"]["annotations"] == {DEFAULT_NETWORK_ANNOTATION: written if named else "kube-system/ipvlan"}
