"""The optional overlay of ValidatingAdmissionPolicies, as kubectl renders it: of whom and of what it speaks.

That the API server refuses by them what it should, and no more, is in tests/cluster.
"""

import re

import pytest

from tests.unit.manifests.test_manifests import INSTALLED, MANIFESTS, ROOT, Object, one, rendered
from webhook.common.event import COMPONENT
from webhook.settings import SECRET

FOLDER = MANIFESTS / "admission-policies"
POLICIES = {"ipvlan-bandwidth-webhook-secrets": "webhook", "ipvlan-bandwidth-reconciler-events": "reconciler"}
SECURITY = " ".join((ROOT / "docs/security.md").read_text().split())


@pytest.fixture(scope="module")
def overlay() -> list[Object]:
    return rendered(FOLDER)


def spec(overlay: list[Object], name: str) -> Object:
    found: Object = one("ValidatingAdmissionPolicy", name, overlay)["spec"]
    return found


def text(overlay: list[Object], name: str) -> str:
    """All that a policy says in CEL."""
    policy = spec(overlay, name)
    return "\n".join(each["expression"] for part in ("variables", "validations") for each in policy.get(part, []))


def test_each_policy_is_in_force_and_refuses_what_it_cannot_judge(overlay: list[Object]) -> None:
    assert {o["apiVersion"] for o in overlay} == {"admissionregistration.k8s.io/v1"}
    names = sorted(POLICIES)
    for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"):
        assert sorted(o["metadata"]["name"] for o in overlay if o["kind"] == kind) == names
    for name in names:
        assert spec(overlay, name)["failurePolicy"] == "Fail"
        binding = one("ValidatingAdmissionPolicyBinding", name, overlay)["spec"]
        assert binding == {"policyName": name, "validationActions": ["Deny"]}


@pytest.mark.parametrize(("name", "account"), POLICIES.items())
def test_a_policy_is_of_one_of_our_accounts_and_of_nobody_else(overlay: list[Object], name: str, account: str) -> None:
    namespace = one("ServiceAccount", account)["metadata"]["namespace"]
    (condition,) = spec(overlay, name)["matchConditions"]
    user = f"system:serviceaccount:{namespace}:{account}"
    assert condition["expression"] == f"request.userInfo.username == '{user}'"


@pytest.mark.parametrize(("name", "account"), POLICIES.items())
def test_a_policy_is_asked_about_each_way_to_write_that_rbac_allows(
    overlay: list[Object], name: str, account: str
) -> None:
    (rule,) = spec(overlay, name)["matchConstraints"]["resourceRules"]
    assert rule["operations"] == ["CREATE", "UPDATE"]
    roles = [one(kind, each) for kind, each in (("Role", "webhook"), ("ClusterRole", f"ipvlan-bandwidth-{account}"))]
    granted = {
        group
        for role in roles
        for granting in role["rules"]
        for group in granting["apiGroups"]
        if set(granting["resources"]) & set(rule["resources"])
        and set(granting["verbs"]) & {"create", "update", "patch"}
    }
    assert granted == set(rule["apiGroups"])


def test_the_webhooks_secret_is_the_one_that_it_keeps(overlay: list[Object]) -> None:
    (name,) = re.findall(r"metadata\.name == '(.*?)'", text(overlay, "ipvlan-bandwidth-webhook-secrets"))
    assert name == SECRET


def test_the_reconcilers_component_is_its_own(overlay: list[Object]) -> None:
    components = re.findall(r"[cC]omponent == '(.*?)'", text(overlay, "ipvlan-bandwidth-reconciler-events"))
    assert components == [COMPONENT] * 2


def test_the_installation_itself_does_without_them_and_the_page_has_them() -> None:
    assert not [o for o in INSTALLED if o["kind"].startswith("ValidatingAdmissionPolicy")]
    assert "kubectl apply -k manifests/admission-policies" in SECURITY
    assert "From Kubernetes 1.30 on" in SECURITY
