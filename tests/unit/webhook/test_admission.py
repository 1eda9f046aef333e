"""Admission's rules: what a Pod with limits becomes, what is refused, what is left alone."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.webhook.json_patch import applied
from webhook.admission import Decision, Pod, Reason, review
from webhook.common.contract import (
    DEFAULT_NETWORK_ANNOTATION,
    EGRESS_ANNOTATION,
    INGRESS_ANNOTATION,
    MANAGED_LABEL,
    MIRROR_ANNOTATION,
)
from webhook.policy import Policy

IPVLAN = Policy(network="kube-system/ipvlan")
NO_NETWORK = Policy()
TYPO = Policy.from_label("shop", "kube-system-ipvlan")

VALUES = st.sampled_from(["100M", "0.1G", "1e8", "1k", "100m", "100Mbps", "", "0"])
ANNOTATIONS = st.none() | st.fixed_dictionaries(
    {},
    optional={
        INGRESS_ANNOTATION: VALUES,
        EGRESS_ANNOTATION: VALUES,
        DEFAULT_NETWORK_ANNOTATION: st.sampled_from(["default/mine", "", "[]"]),
        "example.com/other": st.just("kept"),
    },
)
LABELS = st.none() | st.fixed_dictionaries(
    {}, optional={MANAGED_LABEL: st.sampled_from(["true", "false"]), "app": st.just("cart")}
)
PODS = st.builds(
    Pod,
    annotations=ANNOTATIONS,
    labels=LABELS,
    host_network=st.booleans(),
    windows=st.booleans(),
    deleting=st.booleans(),
)
POLICIES = st.sampled_from([IPVLAN, NO_NETWORK, TYPO])


def patched(pod: Pod, decision: Decision) -> Pod:
    document: dict[str, Any] = {"metadata": {"annotations": pod.annotations, "labels": pod.labels}}
    metadata = applied(list(decision.patch), document)["metadata"]
    return replace(pod, annotations=metadata["annotations"], labels=metadata["labels"])


def created(pod: Pod, policy: Policy = IPVLAN) -> Pod:
    decision = review(pod, None, policy)
    assert decision.allowed, decision.message
    return patched(pod, decision)


def updated(old: Pod, new: Pod, policy: Policy = IPVLAN) -> Pod:
    decision = review(new, old, policy)
    assert decision.allowed, decision.message
    return patched(new, decision)


def reasons(decision: Decision) -> list[Reason]:
    return [problem.reason for problem in decision.problems]


def limited(*, ingress: str | None = None, egress: str | None = None, **more: Any) -> Pod:
    given: Mapping[str, str | None] = {INGRESS_ANNOTATION: ingress, EGRESS_ANNOTATION: egress}
    return Pod(annotations={name: value for name, value in given.items() if value is not None}, **more)


class TestCreate:
    def test_a_pod_with_limits_is_normalised_labelled_and_put_on_the_namespace_s_network(self) -> None:
        pod = created(limited(ingress="0.1G", egress="1e8"))
        assert pod.annotations == {
            INGRESS_ANNOTATION: "100M",
            EGRESS_ANNOTATION: "100M",
            DEFAULT_NETWORK_ANNOTATION: "kube-system/ipvlan",
        }
        assert pod.labels == {MANAGED_LABEL: "true"}

    def test_a_pod_without_limits_or_maps_gets_the_network_alone(self) -> None:
        pod = created(Pod())
        assert pod == Pod(annotations={DEFAULT_NETWORK_ANNOTATION: "kube-system/ipvlan"})

    @pytest.mark.parametrize("written", ["default/mine", "mine", '[{"name": "mine"}]'])
    def test_a_default_network_that_the_author_wrote_stays(self, written: str) -> None:
        pod = created(Pod(annotations={DEFAULT_NETWORK_ANNOTATION: written}))
        assert pod.annotation(DEFAULT_NETWORK_ANNOTATION) == written

    @pytest.mark.parametrize("left", ["", " ", "\n", " " * 200, "[]", " [ ]\n"])
    def test_what_a_template_leaves_of_a_default_network_names_none(self, left: str) -> None:
        pod = Pod(annotations={DEFAULT_NETWORK_ANNOTATION: left})
        assert created(pod).annotations == {DEFAULT_NETWORK_ANNOTATION: "kube-system/ipvlan"}
        assert review(pod, None, NO_NETWORK) == Decision()

    def test_a_limit_on_windows_is_a_warning(self) -> None:
        decision = review(limited(ingress="1M", windows=True), None, IPVLAN)
        assert decision.allowed
        assert decision.warnings == ("nothing limits a Pod with spec.os.name: windows: there is no ipvlan on Windows",)
        assert review(Pod(windows=True), None, IPVLAN).warnings == ()

    def test_a_pod_on_its_node_s_network_is_given_none(self) -> None:
        assert review(Pod(host_network=True), None, IPVLAN) == Decision()

    def test_a_namespace_that_names_no_network_gives_none_but_limits_are_kept_in_order(self) -> None:
        assert created(limited(ingress="0.1G"), NO_NETWORK).annotations == {INGRESS_ANNOTATION: "100M"}

    @pytest.mark.parametrize("value", ["true", "false", ""])
    def test_a_managed_label_without_a_limit_stays_as_workloads_may_select_by_it(self, value: str) -> None:
        labels = {MANAGED_LABEL: value, "app": "cart"}
        assert created(Pod(labels=labels)).labels == labels

    @pytest.mark.parametrize("value", ["false", ""])
    def test_another_managed_label_beside_a_limit_is_refused(self, value: str) -> None:
        labels = {MANAGED_LABEL: value}
        decision = review(limited(egress="1M", labels=labels), None, IPVLAN)
        assert reasons(decision) == [Reason.INVALID_MANAGED_LABEL]
        assert decision.message.startswith(f'label {MANAGED_LABEL}: "{value}" beside a limit should be "true"')
        assert reasons(review(limited(egress="100m", labels=labels), None, IPVLAN))[1:] == [
            Reason.INVALID_MANAGED_LABEL
        ]
        assert Reason.INVALID_MANAGED_LABEL not in reasons(
            review(limited(egress="1M", labels=labels, host_network=True), None, IPVLAN)
        )

    @pytest.mark.parametrize("policy", [IPVLAN, TYPO])
    def test_a_mirror_pod_passes_untouched_whatever_it_says(self, policy: Policy) -> None:
        pod = Pod(annotations={MIRROR_ANNOTATION: "x", INGRESS_ANNOTATION: "100m"}, host_network=True)
        assert review(pod, None, policy) == Decision()

    def test_a_bad_value_is_refused_with_the_contract_s_own_words(self) -> None:
        decision = review(limited(ingress="100m"), None, IPVLAN)
        assert reasons(decision) == [Reason.INVALID_BANDWIDTH]
        assert decision.message.startswith('annotation kubernetes.io/ingress-bandwidth: "100m" is 0.1 bit/s')
        assert decision.message.endswith('did you mean "100M"?')
        assert decision.patch == ()

    def test_a_limit_with_host_network_is_refused_and_the_annotations_are_named(self) -> None:
        decision = review(limited(ingress="1M", egress="1M", host_network=True), None, IPVLAN)
        assert reasons(decision) == [Reason.HOST_NETWORK_LIMIT]
        assert "ingress-bandwidth and kubernetes.io/egress-bandwidth" in decision.message
        assert "hostNetwork: true" in decision.message

    def test_a_malformed_label_of_the_namespace_refuses_the_pod_and_shows_the_shape(self) -> None:
        decision = review(Pod(), None, TYPO)
        assert reasons(decision) == [Reason.INVALID_NETWORK_LABEL]
        assert "it should be NAMESPACE.NAME" in decision.message

    def test_all_that_is_wrong_is_said_at_once_and_numbered(self) -> None:
        decision = review(limited(ingress="100m", egress="100Mbps", host_network=True), None, TYPO)
        assert reasons(decision) == [
            Reason.HOST_NETWORK_LIMIT,
            Reason.INVALID_BANDWIDTH,
            Reason.INVALID_BANDWIDTH,
            Reason.INVALID_NETWORK_LABEL,
        ]
        assert all(f"({number}) " in decision.message for number in (1, 2, 3, 4))
        assert all(problem.text in decision.message for problem in decision.problems)
        assert "\n" not in decision.message


class TestUpdate:
    old_and_bad = limited(ingress="100m", egress="100Mbps")

    def test_a_pod_older_than_the_opt_in_can_be_labelled_and_finalised(self) -> None:
        relabelled = replace(self.old_and_bad, labels={"app": "cart"})
        assert review(relabelled, self.old_and_bad, TYPO) == Decision()

    def test_a_pod_that_is_being_deleted_passes_whatever_changes(self) -> None:
        leaving = replace(self.old_and_bad, deleting=True, annotations={INGRESS_ANNOTATION: "worse"})
        assert review(leaving, self.old_and_bad, IPVLAN) == Decision()

    @pytest.mark.parametrize("left", [None, {}, {DEFAULT_NETWORK_ANNOTATION: ""}, {"example.com/own": "a"}])
    @pytest.mark.parametrize("policy", [IPVLAN, NO_NETWORK, TYPO, Policy(network="kube-system/other")])
    def test_a_default_network_that_an_update_drops_is_put_back(
        self, policy: Policy, left: dict[str, str] | None
    ) -> None:
        network = {DEFAULT_NETWORK_ANNOTATION: "kube-system/ipvlan"}
        assert updated(Pod(network), Pod(left), policy).annotations == {**(left or {}), **network}
        limited_too = {**(left or {}), EGRESS_ANNOTATION: "2M"}
        assert updated(Pod(network), Pod(limited_too), policy).annotations == {**limited_too, **network}

    @pytest.mark.parametrize("labels", [{}, {MANAGED_LABEL: "no"}])
    def test_a_pod_older_than_the_opt_in_that_loses_its_network_gets_that_back_and_no_limit(
        self, labels: dict[str, str]
    ) -> None:
        limits = {INGRESS_ANNOTATION: "1M", EGRESS_ANNOTATION: "100m"}
        old = Pod({**limits, DEFAULT_NETWORK_ANNOTATION: "default/mine"}, labels)
        assert updated(old, Pod(limits, labels)) == old

    def test_a_default_network_can_be_changed_and_one_that_means_nothing_can_be_dropped(self) -> None:
        old = Pod({DEFAULT_NETWORK_ANNOTATION: "default/mine"})
        for new in (Pod({DEFAULT_NETWORK_ANNOTATION: "other"}), Pod(host_network=True), Pod(deleting=True)):
            assert review(new, old, IPVLAN) == Decision()
        assert review(Pod(), Pod({DEFAULT_NETWORK_ANNOTATION: "[]"}), IPVLAN) == Decision()

    def test_a_good_limit_that_did_not_change_is_not_even_normalised(self) -> None:
        old = limited(ingress="0.1G")
        pod = updated(old, limited(ingress="0.1G", egress="0.2G"))
        assert pod.annotations == {INGRESS_ANNOTATION: "0.1G", EGRESS_ANNOTATION: "200M"}
        assert pod.labels == {MANAGED_LABEL: "true"}

    def test_a_changed_limit_is_normalised_and_no_network_is_given(self) -> None:
        assert updated(limited(egress="1M"), limited(egress="0.5M")).annotations == {EGRESS_ANNOTATION: "500k"}

    def test_a_new_bad_value_is_refused(self) -> None:
        decision = review(limited(egress="100m"), limited(egress="1M"), IPVLAN)
        assert reasons(decision) == [Reason.INVALID_BANDWIDTH]

    def test_a_malformed_label_of_the_namespace_does_not_stop_a_running_pod_s_change(self) -> None:
        assert updated(limited(egress="1M"), limited(egress="2M"), TYPO).annotation(EGRESS_ANNOTATION) == "2M"

    def test_a_bad_value_that_was_there_before_is_a_warning(self) -> None:
        decision = review(limited(ingress="100m", egress="1M"), limited(ingress="100m"), IPVLAN)
        assert decision.allowed
        (warning,) = decision.warnings
        assert warning.startswith(
            'an invalid limit on ingress changes nothing: annotation kubernetes.io/ingress-bandwidth: "100m" is'
        )

    def test_removing_limits_leaves_the_label(self) -> None:
        labels = {MANAGED_LABEL: "true", "app": "cart"}
        both = limited(ingress="1M", egress="1M", labels=labels)
        one = updated(both, limited(ingress="1M", labels=labels))
        assert one.labels == labels
        assert updated(one, limited(labels=labels)).labels == labels

    @pytest.mark.parametrize("by_hand", [None, {}])
    def test_a_managed_label_that_was_taken_off_by_hand_is_put_back(self, by_hand: dict[str, str] | None) -> None:
        old = limited(ingress="1M", labels={MANAGED_LABEL: "true"})
        assert updated(old, replace(old, labels=by_hand)).labels == {MANAGED_LABEL: "true"}

    def test_a_managed_label_that_was_changed_by_hand_is_refused_and_one_that_was_so_before_can_be_mended(self) -> None:
        old = limited(ingress="1M", labels={MANAGED_LABEL: "true"})
        wrong = replace(old, labels={MANAGED_LABEL: "no"})
        assert reasons(review(wrong, old, IPVLAN)) == [Reason.INVALID_MANAGED_LABEL]
        assert reasons(review(wrong, Pod(labels=wrong.labels), IPVLAN)) == [Reason.INVALID_MANAGED_LABEL]
        assert updated(wrong, replace(wrong, labels={})).labels == {MANAGED_LABEL: "true"}
        assert updated(wrong, Pod(labels=wrong.labels)).labels == wrong.labels

    def test_a_managed_label_without_a_limit_that_can_be_kept_stays_as_it_is(self) -> None:
        on_host = limited(ingress="1M", host_network=True)
        for old in (Pod(), self.old_and_bad, on_host):
            for value in ("true", "no"):
                labels = {MANAGED_LABEL: value}
                assert updated(old, replace(old, labels=labels)).labels == labels

    def test_a_limit_added_to_a_pod_on_its_node_s_network_is_refused_but_not_one_that_was_there(self) -> None:
        old = limited(ingress="1M", host_network=True)
        decision = review(limited(ingress="1M", egress="1M", host_network=True), old, IPVLAN)
        assert reasons(decision) == [Reason.HOST_NETWORK_LIMIT]
        assert "ingress" not in decision.message
        assert updated(old, Pod(host_network=True, annotations={})).annotations == {}


@given(PODS, st.none() | PODS, POLICIES)
def test_admission_applied_twice_changes_nothing_the_second_time(pod: Pod, old: Pod | None, policy: Policy) -> None:
    first = review(pod, old, policy)
    second = review(patched(pod, first), old, policy)
    assert second.problems == first.problems
    assert second.patch == ()


@given(PODS, st.none() | PODS, POLICIES)
def test_a_refusal_changes_nothing_and_has_a_message_and_an_admission_has_none(
    pod: Pod, old: Pod | None, policy: Policy
) -> None:
    decision = review(pod, old, policy)
    assert decision.allowed is (decision.message == "")
    assert decision.allowed or decision.patch == ()


@given(PODS, POLICIES)
def test_what_is_not_ours_is_never_touched_nor_any_label_that_the_pod_brings(pod: Pod, policy: Policy) -> None:
    after = patched(pod, review(pod, None, policy))
    assert after.annotation("example.com/other") == pod.annotation("example.com/other")
    assert (pod.labels or {}).items() <= (after.labels or {}).items()


@given(PODS, POLICIES)
def test_an_update_that_changes_nothing_of_ours_is_never_refused_nor_changed(pod: Pod, policy: Policy) -> None:
    assert review(pod, pod, policy) == Decision()
