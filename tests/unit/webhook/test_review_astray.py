"""What `python3 -m webhook review` says of limits of no Pod: those beside a template, or that a controller copies."""

import pytest

from tests.unit.webhook.test_review_text import CART, DEPLOYMENT, said
from webhook.documents import Unreadable
from webhook.review_command import review_text

VIRTUAL_MACHINE = """
kind: VirtualMachine
metadata: {name: db}
spec: {template: {metadata: {annotations: {kubernetes.io/egress-bandwidth: LIMIT}}, spec: {domain: {}}}}
"""


class TestLimitsOutsideOfPods:
    def test_one_beside_the_template_is_warned_of(self) -> None:
        text = DEPLOYMENT.replace("10m", "10M").replace(
            "namespace: shop", "namespace: shop, annotations: {kubernetes.io/ingress-bandwidth: 1M}"
        )
        assert said(text).splitlines()[-2:] == [
            "Deployment shop/cart, outside of Pods: not reviewed",
            (
                "  warning: kubernetes.io/ingress-bandwidth in metadata.annotations is of no template of Pods: it "
                "limits nothing, unless a controller copies it to its Pods"
            ),
        ]

    def test_one_that_a_custom_resource_hands_on_is_refused_if_its_pods_would_be(self) -> None:
        good = VIRTUAL_MACHINE.replace("LIMIT", "1M")
        assert said(f"{CART}---{good}").splitlines()[-2] == "VirtualMachine default/db, outside of Pods: not reviewed"
        printed, refused = review_text(VIRTUAL_MACHINE.replace("LIMIT", "1m").encode(), network=None)
        title, problem = printed.splitlines()
        assert (title, refused) == ("VirtualMachine default/db, outside of Pods: refused", True)
        assert problem.startswith(
            "  kubernetes.io/egress-bandwidth in spec.template.metadata.annotations is of no templ"
        )
        assert problem.endswith('did you mean "1M"?')

    def test_one_alone_means_that_no_pod_was_reviewed(self) -> None:
        with pytest.raises(Unreadable, match=r"^reviewed no Pod: VirtualMachine default/db, .*; warning: .*copies it"):
            said(VIRTUAL_MACHINE.replace("LIMIT", "1M"))
        with pytest.raises(Unreadable, match=r"^reviewed nothing, as no Namespace"):
            said(f"{VIRTUAL_MACHINE}---\nkind: Namespace\nmetadata: {{name: default}}")

    def test_where_nothing_is_ever_refused_it_is_not_either(self) -> None:
        system = VIRTUAL_MACHINE.replace("name: db", "name: db, namespace: kube-system").replace("LIMIT", "1m")
        assert said(f"{CART}---{system}").splitlines()[-1] == (
            "VirtualMachine kube-system/db, outside of Pods: not reviewed, as namespace kube-system is never opted in"
        )

    @pytest.mark.parametrize(
        ("limit", "what"),
        [
            (
                "100000000",
                '.annotations["kubernetes.io/egress-bandwidth"] should be a string (in quotes), and is a number',
            ),
            ("0x" + "f" * 5000, "should be a string (in quotes), and is a number"),
            ("", '"" is empty'),
        ],
    )
    def test_one_that_is_no_text_is_refused_as_a_pod_s_is(self, limit: str, what: str) -> None:
        printed, refused = review_text(VIRTUAL_MACHINE.replace("LIMIT", limit).encode(), network=None)
        assert refused
        assert what in printed

    def test_operators_call_them_by_names_of_their_own(self) -> None:
        text = "{kind: Kafka, metadata: {}, spec: {podAnnotations: {kubernetes.io/egress-bandwidth: 1m}}}"
        assert review_text(text.encode(), network=None)[1]
        assert 'Kafka.spec.podAnnotations["kubernetes.io/egress-bandwidth"] should be a string' in said(
            text.replace("1m", "1")
        )
