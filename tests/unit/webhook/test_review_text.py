"""What `python3 -m webhook review` says of manifests: Pods, workloads, AdmissionReviews, and what is none of these."""

import json
from typing import Any

import pytest

from tests.unit.webhook.objects import pod, review_of
from webhook.common.contract import INGRESS_ANNOTATION
from webhook.documents import Unreadable
from webhook.review_command import review_text

SHOP = """
apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels: {ipvlan-bandwidth.io/network: kube-system.ipvlan}
"""
CART = """
apiVersion: v1
kind: Pod
metadata:
  name: cart
  namespace: shop
  creationTimestamp: 2026-01-01T00:00:00Z
  labels: {ipvlan-bandwidth.io/managed: "true"}
  annotations: {kubernetes.io/ingress-bandwidth: 0.1G}
spec: {containers: []}
"""


def said(text: str, *, network: str | None = None) -> str:
    return review_text(text.encode(), network=network)[0]


def list_of(*items: Any, kind: str = "List") -> str:
    return json.dumps({"apiVersion": "v1", "kind": kind, "items": list(items)})


def namespace(name: str, label: str | None = None) -> dict[str, Any]:
    labels = {} if label is None else {"labels": {"ipvlan-bandwidth.io/network": label}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, **labels}}


class TestPods:
    def test_a_pod_beside_its_namespace_gets_that_namespace_s_network(self) -> None:
        assert said(f"{SHOP}---{CART}") == (
            "Pod shop/cart: allowed, with these changes\n"
            '  set annotation kubernetes.io/ingress-bandwidth: "100M"\n'
            '  set annotation v1.multus-cni.io/default-network: "kube-system/ipvlan"\n'
        )

    def test_names_and_kinds_are_shown_without_line_ends_and_a_terminal_s_commands(self) -> None:
        wild = pod({INGRESS_ANNOTATION: "1m"}, name="x\nPod y: allowed\x1b[2J", namespace="a\nb")
        nameless = {
            "kind": "Po\rd",
            "metadata": {"a\n": 1},
            "spec": {"\nx": {"spec": {"containers": []}, "metadata": 1}},
        }
        titles = [
            line for line in said(list_of(wild, nameless, namespace("a\nb"))).splitlines() if not line.startswith(" ")
        ]
        assert titles == [
            (
                "Pod a\\nb/x\\nPod y: allowed\\x1b[2J: not reviewed, as namespace a\\nb does not have the label "
                "ipvlan-bandwidth.io/network"
            ),
            "Po\\rd default/*: refused",
        ]

    def test_a_pod_alone_is_reviewed_without_a_network_or_with_the_one_that_is_given(self) -> None:
        text = json.dumps(pod())
        assert said(text) == "Pod default/cart: allowed, as it is\n"
        assert '"kube-system/ipvlan"' in said(text, network="kube-system.ipvlan")

    def test_a_warning_is_said_too(self) -> None:
        text = json.dumps({**pod({INGRESS_ANNOTATION: "1M"}), "spec": {"os": {"name": "windows"}}})
        assert said(text).splitlines()[-1].startswith("  warning: nothing limits a Pod with spec.os.name: windows")

    def test_a_refusal_says_each_problem_on_a_line(self) -> None:
        text = json.dumps(pod({INGRESS_ANNOTATION: "100m"}))
        printed, refused = review_text(text.encode(), network="typo")
        title, *problems = printed.splitlines()
        assert refused
        assert title == "Pod default/cart: refused"
        assert len(problems) == 2
        assert problems[0].endswith('did you mean "100M"?')
        assert "it should be NAMESPACE.NAME" in problems[1]

    def test_one_refused_pod_among_others_is_a_refusal(self) -> None:
        text = list_of(pod({INGRESS_ANNOTATION: "100m"}, name="bad"), pod())
        printed, refused = review_text(text.encode(), network=None)
        assert refused
        assert "Pod default/bad: refused" in printed
        assert "Pod default/cart: allowed" in printed

    def test_a_namespace_that_did_not_opt_in_is_said_to_be_left_alone(self) -> None:
        text = list_of(namespace("shop"), pod({INGRESS_ANNOTATION: "100m"}, namespace="shop"), pod())
        printed, refused = review_text(text.encode(), network=None)
        assert (printed.splitlines(keepends=True)[0], refused) == (
            "Pod shop/cart: not reviewed, as namespace shop does not have the label ipvlan-bandwidth.io/network\n",
            False,
        )

    def test_the_network_that_is_given_counts_for_a_namespace_without_the_label_too(self) -> None:
        text = list_of(namespace("shop"), pod({INGRESS_ANNOTATION: "100m"}, namespace="shop"))
        printed, refused = review_text(text.encode(), network="kube-system.ipvlan")
        assert refused
        assert printed.startswith("Pod shop/cart: refused\n")

    def test_a_label_beside_the_pod_counts_more_than_the_network_that_is_given(self) -> None:
        text = list_of(namespace("shop", "kube-system.ipvlan"), pod(namespace="shop"))
        assert '"kube-system/ipvlan"' in said(text, network="kube-system.other")

    @pytest.mark.parametrize("others", [[], [pod(namespace="kube-system")]], ids=["alone", "beside what never is"])
    def test_where_all_is_left_alone_for_want_of_a_label_nothing_was_reviewed(self, others: list[Any]) -> None:
        text = list_of(namespace("shop"), pod({INGRESS_ANNOTATION: "100m"}, namespace="shop"), *others)
        with pytest.raises(Unreadable, match=r"reviewed nothing, .* has the label ipvlan-bandwidth.io/network: give"):
            said(text)

    @pytest.mark.parametrize("name", ["kube-system", "ipvlan-bandwidth"])
    def test_namespaces_that_are_never_opted_in_are_left_alone_whatever_their_label(self, name: str) -> None:
        text = list_of(namespace(name, "kube-system.ipvlan"), pod({INGRESS_ANNOTATION: "100m"}, namespace=name))
        assert said(text) == f"Pod {name}/cart: not reviewed, as namespace {name} is never opted in\n"


DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: shop}
spec:
  template:
    metadata:
      annotations: {kubernetes.io/egress-bandwidth: 10m}
    spec: {containers: []}
"""
CRON_JOB = """
kind: CronJob
metadata: {name: nightly}
spec: {jobTemplate: {spec: {template: {spec: {hostNetwork: true, containers: []}}}}}
"""
JOB_SET = """
kind: JobSet
metadata: {name: train, namespace: shop}
spec:
  replicatedJobs:
    - name: workers
      template:
        spec:
          template:
            metadata: {annotations: {kubernetes.io/egress-bandwidth: 100m}}
            spec: {containers: []}
"""
PYTORCH_JOB = """
kind: PyTorchJob
metadata: {name: train}
spec:
  pytorchReplicaSpecs:
    Master: {template: {spec: {containers: []}}}
    Worker: {template: {metadata: {annotations: {kubernetes.io/egress-bandwidth: 1M}}, spec: {containers: []}}}
"""

POLICY = """
apiVersion: GROUP/v1
kind: ClusterPolicy
metadata: {name: limits}
spec:
  rules:
    - validate:
        pattern:
          metadata: {annotations: {kubernetes.io/egress-bandwidth: "?*"}}
          spec: {hostNetwork: "!true", containers: [{image: "registry/*"}]}
"""


class TestWorkloads:
    def test_the_template_of_a_workload_is_reviewed_as_its_pods_will_be_and_other_objects_are_passed_over(self) -> None:
        printed, refused = review_text(f"{SHOP}---{DEPLOYMENT}---\nkind: Service\n".encode(), network=None)
        title, problem = printed.splitlines()
        assert (title, refused) == ("Deployment shop/cart: refused", True)
        assert problem.endswith('did you mean "10M"?')
        assert said(f"{SHOP}---{DEPLOYMENT.replace('10m', '10M')}").splitlines()[0] == (
            "Deployment shop/cart: allowed, with these changes"
        )

    @pytest.mark.parametrize("metadata", ["metadata:", "metadata: {}", ""])
    def test_a_template_needs_no_metadata(self, metadata: str) -> None:
        text = f"kind: Job\nmetadata: {{name: once}}\nspec: {{template: {{spec: {{containers: []}}, {metadata}}}}}"
        assert said(text) == "Job default/once: allowed, as it is\n"

    def test_a_cron_job_has_its_template_within_that_of_its_jobs(self) -> None:
        assert said(CRON_JOB) == "CronJob default/nightly: allowed, as it is\n"

    def test_a_custom_resource_has_its_template_where_it_likes_and_is_reviewed_beside_a_good_workload(self) -> None:
        printed, refused = review_text(
            f"{SHOP}---{DEPLOYMENT.replace('10m', '10M')}---{JOB_SET}".encode(), network=None
        )
        assert refused
        assert [line for line in printed.splitlines() if not line.startswith(" ")] == [
            "Deployment shop/cart: allowed, with these changes",
            "JobSet shop/train: refused",
        ]

    def test_of_several_templates_each_is_named_by_its_place(self) -> None:
        assert said(PYTORCH_JOB) == (
            "PyTorchJob default/train, spec.pytorchReplicaSpecs.Master.template: allowed, as it is\n"
            "PyTorchJob default/train, spec.pytorchReplicaSpecs.Worker.template: allowed, with these changes\n"
            '  set label ipvlan-bandwidth.io/managed: "true"\n'
        )

    @pytest.mark.parametrize("group", ["kyverno.io", "policies.kyverno.io", "mutations.gatekeeper.sh"])
    def test_a_policy_has_patterns_of_pods_and_no_template(self, group: str) -> None:
        policy = POLICY.replace("GROUP", group)
        assert review_text(f"{CART}---{policy}".encode(), network=None) == review_text(CART.encode(), network=None)
        with pytest.raises(Unreadable, match="found no Pod"):
            said(policy)

    def test_an_operator_s_object_is_no_policy_whatever_its_group_looks_like(self) -> None:
        assert review_text(POLICY.replace("GROUP", "notkyverno.io").encode(), network=None)[1]

    def test_a_pod_template_has_it_outside_of_a_spec(self) -> None:
        text = "{kind: PodTemplate, metadata: {name: cart}, template: {spec: {containers: []}}}"
        assert said(text) == "PodTemplate default/cart: allowed, as it is\n"


class TestAdmissionReviews:
    def test_an_admission_review_is_answered_as_the_webhook_would(self) -> None:
        printed, refused = review_text(json.dumps(review_of(pod({INGRESS_ANNOTATION: "100m"}))).encode(), network=None)
        answer = json.loads(printed)
        assert refused
        assert answer["kind"] == "AdmissionReview"
        assert answer["response"]["allowed"] is False

    def test_its_policy_comes_from_the_namespace_beside_it(self) -> None:
        printed, refused = review_text(list_of(namespace("shop", "typo"), review_of(pod())).encode(), network=None)
        assert refused
        assert "it should be NAMESPACE.NAME" in printed


class TestWrongShapes:
    """The API server refuses these by itself: each is told by its name, and the others are reviewed."""

    @pytest.mark.parametrize(
        ("text", "title", "what"),
        [
            ("{kind: Pod, metadata: {namespace: 5}, spec: {}}", "Pod", "Pod.metadata.namespace should be a string"),
            ("{kind: Pod}", "Pod", "Pod.metadata should be an object"),
            ("{kind: Namespace}", "Namespace", "Namespace.metadata should be an object"),
            (
                "{kind: Namespace, metadata: {name: shop, labels: {ipvlan-bandwidth.io/network: 5}}}",
                "Namespace shop",
                "should be a string (in quotes), and is a number",
            ),
            (
                "{kind: Deployment, spec: {template: {spec: {containers: []}}}}",
                "Deployment",
                "Deployment.metadata should be an object",
            ),
            (
                "{kind: Job, metadata: {}, spec: {template: {metadata: {labels: 5}, spec: {containers: []}}}}",
                "Job default/*",
                "the template of Job.metadata.labels should be",
            ),
            ("{kind: AdmissionReview}", "AdmissionReview", "expected apiVersion admission.k8s.io/v1"),
        ],
    )
    def test_an_object_of_the_wrong_shape_is_refused_and_told_where(self, text: str, title: str, what: str) -> None:
        printed, refused = review_text(text.encode(), network=None)
        first, problem = printed.splitlines()
        assert (first, refused) == (f"{title}: refused", True)
        assert what in problem

    def test_a_number_for_a_limit_is_told_beside_what_else_is_refused_or_allowed(self) -> None:
        number = CART.replace("0.1G", "100000000")
        printed, refused = review_text(f"{SHOP}---{number}---{DEPLOYMENT}---{CART}".encode(), network=None)
        assert refused
        assert [line for line in printed.splitlines() if not line.startswith(" ")] == [
            "Pod shop/cart: refused",
            "Deployment shop/cart: refused",
            "Pod shop/cart: allowed, with these changes",
        ]

    def test_what_is_wrong_with_one_namespace_leaves_another_its_network(self) -> None:
        wrong = "{kind: Namespace, metadata: {name: other, labels: 5}}"
        printed, refused = review_text(f"{wrong}\n---{SHOP}---{CART}".encode(), network=None)
        assert refused
        assert '"kube-system/ipvlan"' in printed
