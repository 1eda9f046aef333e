"""The Namespace's label, read as the network of its Pods."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.common.contract import quoted
from webhook.policy import Policy

DNS_LABELS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)


def test_a_namespace_without_the_label_decides_nothing() -> None:
    assert Policy.from_label("shop", None) == Policy()


@given(DNS_LABELS, DNS_LABELS)
def test_the_dot_divides_namespace_and_name(namespace: str, name: str) -> None:
    assert Policy.from_label("shop", f"{namespace}.{name}") == Policy(network=f"{namespace}/{name}")


@given(DNS_LABELS, st.lists(DNS_LABELS, min_size=2, max_size=3).map(".".join))
def test_a_network_that_multus_would_not_read_is_a_problem_that_says_what_to_do(namespace: str, name: str) -> None:
    policy = Policy.from_label("shop", f"{namespace}.{name}")
    assert policy.network is None
    assert policy.problem is not None
    assert quoted(name) in policy.problem
    assert "give it a name without dots" in policy.problem


def test_the_longest_label_that_kubernetes_takes_is_a_network() -> None:
    namespace, name = "a" * 30, "b" * 32
    assert Policy.from_label("shop", f"{namespace}.{name}") == Policy(network=f"{namespace}/{name}")


# As Multus has it for both parts of `namespace/name` (pkg/k8sclient, parsePodNetworkObjectName).
MULTUS = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@given(st.from_regex(r"[-.a-z0-9]{1,8}\.[-.a-z0-9]{1,8}", fullmatch=True))
def test_multus_reads_whatever_is_injected(value: str) -> None:
    network = Policy.from_label("shop", value).network
    if network is not None:
        namespace, name = network.split("/")
        assert MULTUS.fullmatch(namespace)
        assert MULTUS.fullmatch(name)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("", '"" has no dot in it'),
        ("kube-system", '"kube-system" has no dot in it'),
        ("kube-system_ipvlan", "has no dot in it"),
        ("Kube-System.ipvlan", 'is made of DNS names, and "Kube-System" is none'),
        ("kube-system.ip_vlan", '"ip_vlan" is none'),
        ("kube-system.", '"" is none'),
        (".ipvlan", '"" is none'),
        ("kube-system..ipvlan", '"" is none'),
        ("kube-system.-ipvlan", '"-ipvlan" is none'),
        ("kube-system.ipvlan.vlan100", 'a NetworkAttachmentDefinition "ipvlan.vlan100", which Multus does not read'),
        ("kube-system.ipvlan\n", '"ipvlan\\n" is none'),
        (f"{'a' * 64}.ipvlan", "is none"),
        (f"{'a' * 30}.{'b' * 33}", "has 64 characters, and a label can have 63: give either a shorter name"),
    ],
)
def test_a_malformed_label_is_a_problem_that_says_what_it_should_look_like(value: str, what: str) -> None:
    policy = Policy.from_label("shop", value)
    assert policy.network is None
    assert policy.problem is not None
    assert policy.problem.startswith('label ipvlan-bandwidth.io/network of namespace "shop": ')
    assert what in policy.problem
    assert "it should be NAMESPACE.NAME" in policy.problem
    assert "kube-system.ipvlan for ipvlan in kube-system" in policy.problem
