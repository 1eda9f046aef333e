"""What a Pod asks for becomes limits, whatever its annotations hold."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired import desired_limits
from reconciler.pods import PodView
from reconciler.report import Reason
from webhook.common.contract import Limits, Quantity

M20, M100 = Quantity(20_000_000), Quantity(100_000_000)


def view(**fields):
    return PodView("u1", "shop", "web-0", **{"managed": True, **fields})


def test_both_annotations_of_an_admitted_pod_are_followed():
    wanted = desired_limits(view(ingress="100M", egress="20M"), Limits())
    assert wanted.limits == Limits(ingress=M100, egress=M20)
    assert wanted.notices == ()


def test_one_annotation_limits_one_side():
    assert desired_limits(view(egress="20M"), Limits()).limits == Limits(egress=M20)


def test_a_removed_annotation_lifts_its_limit():
    assert desired_limits(view(egress="20M"), Limits(ingress=M100, egress=M20)).limits == Limits(egress=M20)
    assert desired_limits(view(), Limits(ingress=M100)).limits == Limits()


def test_a_pod_on_the_hosts_network_is_left_alone():
    assert desired_limits(view(ingress="100M", host_network=True), Limits()) == desired_limits(view(), Limits())


def test_a_pod_never_admitted_is_not_limited_and_its_owner_is_told_what_to_do():
    wanted = desired_limits(view(managed=False, ingress="100M"), Limits())
    assert not wanted.limits
    (notice,) = wanted.notices
    assert notice.reason == Reason.NOT_MANAGED
    assert "Label this Pod ipvlan-bandwidth.io/managed=true to" in notice.message
    assert "ipvlan-bandwidth.io/network=" in notice.message
    # Also one whose eth0 is not ipvlan, and whose net1 is: who labels the namespace for it changes every new Pod there.
    assert "they then get that network as eth0" in notice.message
    assert "unless they name another in v1.multus-cni.io/default-network" in notice.message


def test_who_can_never_be_admitted_is_told_what_works_instead():
    excluded = PodView("u1", "kube-system", "dns", ingress="100M")
    (notice,) = desired_limits(excluded, Limits()).notices
    assert "Pods of this namespace are never admitted" in notice.message
    assert "ipvlan-bandwidth.io/network=" not in notice.message
    for namespace in ("shop", "kube-system"):
        static = PodView("u1", namespace, "cache-node-1", ingress="100M", static=True)
        (notice,) = desired_limits(static, Limits()).notices
        assert 'add the label ipvlan-bandwidth.io/managed: "true" to its manifest' in notice.message
        assert desired_limits(replace(static, managed=True), Limits()).limits == Limits(ingress=M100)


def test_a_limited_pod_that_loses_its_label_by_a_way_round_the_webhook_stays_limited():
    assert desired_limits(view(managed=False, ingress="20M"), Limits(ingress=M100)).limits == Limits(ingress=M20)


def test_an_annotation_that_turned_bad_leaves_the_last_good_limit():
    wanted = desired_limits(view(ingress="100m", egress="20M"), Limits(ingress=M100, egress=M100))
    assert wanted.limits == Limits(ingress=M100, egress=M20)
    (notice,) = wanted.notices
    assert notice.reason == Reason.INVALID
    assert "kubernetes.io/ingress-bandwidth" in notice.message
    assert "the limit of 100M stays" in notice.message


def test_a_bad_annotation_with_no_limit_before_sets_none():
    wanted = desired_limits(view(ingress="nonsense"), Limits())
    assert not wanted.limits
    assert "no limit is set" in wanted.notices[0].message


@given(st.text(max_size=40), st.text(max_size=40), st.booleans())
def test_any_annotation_gives_an_intent(ingress, egress, managed):
    wanted = desired_limits(view(ingress=ingress, egress=egress, managed=managed), Limits(ingress=M100))
    assert wanted.limits.ingress is not None
