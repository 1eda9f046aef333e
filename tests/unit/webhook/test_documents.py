"""What `python3 -m webhook review` makes of a text: YAML as `kubectl` reads it, Lists, and what cannot be read."""

import json

import pytest

from tests.unit.webhook.objects import pod
from tests.unit.webhook.test_review_text import CART, SHOP, list_of, namespace, said
from webhook.common.contract import INGRESS_ANNOTATION
from webhook.documents import Unreadable
from webhook.review_command import review_text


class TestObjects:
    def test_the_items_of_a_pod_list_need_no_kind(self) -> None:
        item = pod({INGRESS_ANNOTATION: "1M"})
        del item["kind"]
        assert said(list_of(item, kind="PodList")).startswith("Pod default/cart: allowed")

    def test_the_items_of_any_list_that_the_api_server_sent_are_reviewed_as_they_are_alone(self) -> None:
        item = {"metadata": {"name": "cart", "namespace": "shop"}, "spec": {"template": {"spec": {"containers": []}}}}
        text = list_of(namespace("shop", "typo"), {"kind": "DeploymentList", "metadata": {}, "items": [item]})
        printed, refused = review_text(text.encode(), network=None)
        assert (printed.splitlines()[0], refused) == ("Deployment shop/cart: refused", True)

    def test_lists_that_grow_by_aliases_are_looked_at_once(self) -> None:
        ten = ", ".join
        lists = "".join(
            f"- &l{n} {{kind: List, items: [{ten([f'*l{n - 1}'] * 10) if n else 'kind: Secret'}]}}\n" for n in range(12)
        ).replace("[kind: Secret]", "[{kind: Pod, metadata: {name: cart}, spec: {}}]")
        assert said(f"kind: List\nitems:\n{lists}") == "Pod default/cart: allowed, as it is\n"

    def test_a_label_and_an_annotation_without_a_value_are_empty_as_the_api_server_stores_them(self) -> None:
        text = CART.replace("0.1G", "0.1G, checksum/config: , v1.multus-cni.io/default-network: ").replace(
            'managed: "true"', 'managed: "true", tier: '
        )
        printed, refused = review_text(f"{SHOP}---{text}".encode(), network=None)
        assert not refused
        assert 'default-network: "kube-system/ipvlan"' in printed
        empty = SHOP.replace("kube-system.ipvlan", "")
        assert 'label ipvlan-bandwidth.io/network of namespace "shop": ""' in said(f"{empty}---{CART}")
        printed, refused = review_text(CART.replace("0.1G", "").encode(), network=None)
        assert refused
        assert '"" is empty' in printed

    def test_what_is_only_called_a_list_is_an_object_as_others(self) -> None:
        names = "{kind: IPAllowList, items: ['1.2.3.4']}"
        assert said(f"{names}\n---{CART}").startswith("Pod shop/cart: allowed")

    def test_the_items_of_a_list_are_of_its_api_group(self) -> None:
        pattern = {
            "spec": {"rule": {"spec": {"containers": []}, "metadata": {"annotations": {INGRESS_ANNOTATION: "?*"}}}}
        }
        policies = {"apiVersion": "kyverno.io/v1", "kind": "ClusterPolicyList", "items": [pattern]}
        assert said(list_of(policies, pod())) == "Pod default/cart: allowed, as it is\n"

    def test_json_may_be_nested_as_deep_as_python_reads_it(self) -> None:
        deep = {**pod(), "spec": {"x": json.loads("[" * 700 + "]" * 700)}}
        assert said(json.dumps(deep)) == "Pod default/cart: allowed, as it is\n"

    def test_keys_that_are_no_texts_are_read_as_kubectl_does(self) -> None:
        assert said(CART.replace("0.1G", "0.1G, 1: a, true: b")).startswith("Pod shop/cart: allowed")

    def test_a_list_is_as_good_as_documents_and_the_order_does_not_matter(self) -> None:
        text = list_of(pod({INGRESS_ANNOTATION: "1M"}, namespace="shop"), namespace("shop", "kube-system.ipvlan"))
        assert '"kube-system/ipvlan"' in said(text)
        assert "set label ipvlan-bandwidth.io/managed" in said(text)


class TestYaml:
    """What `kubectl` reads otherwise than YAML 1.1 has it (sigs.k8s.io/yaml)."""

    @pytest.mark.parametrize("date", ["2026-01-01", "2026-01-01T00:00:00Z", "2026-02-31"])
    def test_a_date_is_a_text(self, date: str) -> None:
        text = f"{{kind: Pod, metadata: {{name: cart, labels: {{since: {date}}}}}, spec: {{}}}}"
        assert said(text) == "Pod default/cart: allowed, as it is\n"

    def test_a_limit_that_is_a_date_is_refused_as_it_was_written(self) -> None:
        text = CART.replace("0.1G", "2026-01-01")
        printed, refused = review_text(text.encode(), network=None)
        assert refused
        assert '"2026-01-01"' in printed

    @pytest.mark.parametrize("number", ["1e8", "1.5e8", ".5e9", "1.e8", "+1.5e8", "-.5", "1_0e8", "1.5E+8", "089"])
    def test_a_number_without_quotes_is_one_as_kubectl_refuses_it(self, number: str) -> None:
        printed, refused = review_text(CART.replace("0.1G", number).encode(), network=None)
        assert refused
        assert printed.endswith("should be a string (in quotes), and is a number\n")

    @pytest.mark.parametrize("limit", ["1.5G", ".5G", '"1.5e8"', "'.5e9'"])
    def test_a_limit_with_a_suffix_or_in_quotes_is_a_text(self, limit: str) -> None:
        assert said(CART.replace("0.1G", limit)).startswith("Pod shop/cart: allowed")

    @pytest.mark.parametrize("text", ["1e", "1.5e", "e8", ".", "1.2.3", "_1e8", "1:30", "12:30:59", "1:30.5"])
    def test_what_only_begins_like_a_number_is_refused_as_it_was_written(self, text: str) -> None:
        printed, refused = review_text(CART.replace("0.1G", text).encode(), network=None)
        assert refused
        assert f'"{text}"' in printed

    def test_an_equals_sign_is_a_text_as_in_the_schemas_of_operators(self) -> None:
        schema = "{kind: CustomResourceDefinition, spec: {enum: [=, '!=']}}"
        assert said(f"{schema}\n---{CART}").startswith("Pod shop/cart: allowed")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "found no Pod, no workload"),
        (b"---\n---\n", "found no Pod, no workload"),
        (SHOP.encode(), "found no Pod, no workload"),
        (b"{kind: List, items: [{kind: Secret}]}", "found no Pod, no workload"),
        (b"{kind: Deployment, spec: {template: {spec: 5}}}", "found no Pod, no workload"),
        (b"{kind: Service, spec: {template: {spec: {}}}}", "found no Pod, no workload"),
        (b"{kind: CronJob, spec: {jobTemplate: 5}}", "found no Pod, no workload"),
        (b"{kind: Prometheus, metadata: {}, spec: {containers: []}}", "found no Pod, no workload"),
        (b"kind: Deployment\nspec: &a {template: *a}", "found no Pod, no workload"),
        (b"kind: [", "neither JSON nor YAML: while parsing a flow node"),
        (b"\xff\xfe\x00", "neither JSON nor YAML"),
        (b"kind: 0x_", "neither JSON nor YAML: invalid literal"),
        (b"kind: 2026-02-31", "found no Pod, no workload"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{a: " * 5_000, "nested too deeply"),
        (b"text", "not a Kubernetes object: it has no `kind`"),
        (b"kind: 5", "it has no `kind`"),
        (b"kind: [Pod]", "it has no `kind`"),
        (b"kind: ''", "found no Pod, no workload"),
        (b"{kind: List, items: 5}", 'kind is "List"'),
        (b"{kind: List, items: [5]}", "it has no `kind`"),
        (b"&a {kind: List, items: [*a]}", "found no Pod, no workload"),
        (b"kind: !!int ''", "neither JSON nor YAML: string index out of range"),
        (b"kind: Pod\n? 0x" + b"f" * 5000 + b"\n: a", "neither JSON nor YAML: Exceeds the limit"),
        (b"kind: !!bool maybe", "neither JSON nor YAML: 'maybe'"),
    ],
)
def test_input_that_cannot_be_read_is_told_what_is_wrong(text: bytes, what: str) -> None:
    with pytest.raises(Unreadable) as caught:
        review_text(text, network=None)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)
