"""The plan reaches what is desired in one go, and never touches what is foreign."""

from dataclasses import replace

import pytest
from hypothesis import given

from reconciler.model import (
    FQ_HANDLE,
    IFB_NAME,
    SPLITTER_HANDLE,
    DesiredShaping,
    Link,
    ObservedLink,
    ObservedShaping,
    Qdisc,
    Splitting,
    covered,
)
from reconciler.plan import plan
from reconciler.steps import (
    AttachShaper,
    ClearLimit,
    SetRoot,
    WriteLimit,
)
from tests.unit.reconciler.plans import BOTH, NOTHING, SLAVE, after, desired, desires, entry, foreign, kernels
from webhook.common.contract import Direction


@given(desires, kernels())
def test_planning_again_after_the_plan_gives_no_step(wanted: DesiredShaping, kernel: ObservedShaping) -> None:
    assert plan(wanted, after(wanted, kernel)).steps == ()


@given(desires, kernels())
def test_what_is_foreign_stays(wanted: DesiredShaping, kernel: ObservedShaping) -> None:
    assert foreign(after(wanted, kernel)) == foreign(kernel)


@given(kernels())
def test_without_limits_nothing_of_ours_stays(kernel: ObservedShaping) -> None:
    left = after(NOTHING, kernel)
    assert left.limits == {}
    for held in left.links:
        assert held.link.kind != "ifb" or held.link.name == "renamed"
        assert not held.root.is_ours
        assert not any(one.is_ours for one in held.filters)


@given(desires, desires)
def test_from_a_clean_pod_and_back_is_as_it_was(first: DesiredShaping, second: DesiredShaping) -> None:
    clean = ObservedShaping((ObservedLink(Link("lo", "")), SLAVE, ObservedLink(Link("veth0", "veth"))))
    assert after(NOTHING, after(second, after(first, clean))) == clean


@given(desires, kernels())
def test_limits_are_written_before_all_else_and_cleared_after(wanted: DesiredShaping, kernel: ObservedShaping) -> None:
    kinds = [type(step) for step in plan(wanted, kernel).steps]
    order = [0 if kind is WriteLimit else 2 if kind is ClearLimit else 1 for kind in kinds]
    assert order == sorted(order)


@pytest.mark.parametrize("wanted", [BOTH, desired(Direction.INGRESS), desired(Direction.EGRESS)])
def test_the_coordinators_veth_keeps_its_limits_under_another_name(wanted: DesiredShaping) -> None:
    shaped = after(
        wanted, ObservedShaping((SLAVE, ObservedLink(Link("veth0", "veth")), ObservedLink(Link("v1", "veth"))))
    )
    names = {"veth0": "v0"}
    links = tuple(
        replace(held, link=replace(held.link, name=names.get(held.link.name, held.link.name))) for held in shaped.links
    )
    renamed = replace(shaped, links=links)
    assert plan(wanted, renamed).steps == ()
    assert {held.link.name for held in covered(links)} == {"eth0", "v0"}
    left = after(NOTHING, renamed)
    assert not any(held.is_touched for held in left.links)
    assert {held.link.name for held in covered(left.links)} == {"eth0"}


def test_the_coordinators_veth_is_known_by_its_root_too_when_its_filters_are_gone() -> None:
    shaped = after(BOTH, ObservedShaping((SLAVE, ObservedLink(Link("v0", "veth"), Qdisc("fq", FQ_HANDLE)))))
    veth = next(held for held in shaped.links if held.link.name == "v0")
    assert veth.ours(Direction.EGRESS)
    assert veth.ours(Direction.INGRESS)


def test_another_rate_is_one_write() -> None:
    shaped = after(BOTH, ObservedShaping((SLAVE,)))
    faster = replace(BOTH, limits={**BOTH.limits, Direction.INGRESS: entry(200_000_000)})
    assert plan(faster, shaped).steps == (WriteLimit(3, Direction.INGRESS, entry(200_000_000)),)


def test_a_low_rate_of_ingress_splits_packets_and_another_low_rate_changes_that_in_place() -> None:
    shaped = after(desired(Direction.INGRESS, bits_per_second=10_000_000), ObservedShaping((SLAVE,)))
    slower = desired(Direction.INGRESS, bits_per_second=4_000_000)
    assert plan(slower, shaped).steps == (
        WriteLimit(3, Direction.INGRESS, entry(4_000_000)),
        SetRoot(IFB_NAME, Splitting(3028, 625_000)),
    )
    much_slower = desired(Direction.INGRESS, bits_per_second=1_000_000)
    assert plan(much_slower, shaped).steps[1:] == (SetRoot(IFB_NAME, Splitting(3028, 156_250), afresh=True),)
    assert plan(desired(Direction.INGRESS), shaped).steps[1:] == (SetRoot(IFB_NAME),)


@pytest.mark.parametrize(
    ("bits_per_second", "in_ten_packets_time"), [(100_000, 10.16), (999_999, 10.16), (1_000_000, 12.5)]
)
def test_segments_leave_a_little_faster_than_the_limit_and_very_little_at_a_low_one(
    bits_per_second: int, in_ten_packets_time: float
) -> None:
    made = plan(desired(Direction.INGRESS, bits_per_second=bits_per_second), ObservedShaping((SLAVE,)))
    (root,) = (step for step in made.steps if isinstance(step, SetRoot) and step.link == IFB_NAME)
    assert root.splitting
    assert root.splitting.flow_bytes_per_second * 8 * 10 / bits_per_second == pytest.approx(
        in_ten_packets_time, abs=0.01
    )


def test_what_waits_is_dropped_when_a_limit_falls_to_less_than_a_quarter() -> None:
    shaped = after(desired(Direction.INGRESS, bits_per_second=10_000_000), ObservedShaping((SLAVE,)))
    quarter = desired(Direction.INGRESS, bits_per_second=2_500_000)
    assert SetRoot(IFB_NAME, Splitting(3028, 390_625)) in plan(quarter, shaped).steps
    less = desired(Direction.INGRESS, bits_per_second=2_400_000)
    assert SetRoot(IFB_NAME, Splitting(3028, 375_000), afresh=True) in plan(less, shaped).steps


def test_where_the_kernel_cannot_split_a_low_rate_has_the_root_of_a_high_one() -> None:
    slow = desired(Direction.INGRESS, bits_per_second=1_000_000)
    unsplit = replace(slow, may_split=False)
    assert SetRoot(IFB_NAME) in plan(unsplit, ObservedShaping((SLAVE,))).steps
    assert plan(unsplit, after(slow, ObservedShaping((SLAVE,)))).steps == (SetRoot(IFB_NAME),)


def test_packets_of_the_largest_mtu_fit_and_those_that_wait_are_never_too_long_for_what_comes() -> None:
    jumbo = ObservedLink(Link("eth1", "ipvlan", "l2", mtu=9000))
    slow = desired(Direction.INGRESS, bits_per_second=1_000_000)
    shaped = after(slow, ObservedShaping((SLAVE, jumbo)))
    (ifb,) = [held for held in shaped.links if held.link.name == IFB_NAME]
    assert ifb.root.splitting == Splitting(9022, 156_250)
    usual = replace(shaped, links=tuple(replace(held, link=replace(held.link, mtu=1500)) for held in shaped.links))
    assert plan(slow, usual).steps == ()
    altered = replace(ifb, root=Qdisc("tbf", SPLITTER_HANDLE, is_intact=False, splitting=Splitting(60_000, 1)))
    tampered = replace(shaped, links=(SLAVE, jumbo, altered))
    assert SetRoot(IFB_NAME, Splitting(9022, 156_250), afresh=True) in plan(slow, tampered).steps


def test_a_root_is_updated_for_a_larger_mtu_or_when_the_kernel_can_split_and_repaired_when_others_changed_it() -> None:
    slow = desired(Direction.INGRESS, bits_per_second=10_000_000)
    shaped = after(slow, ObservedShaping((SLAVE,)))
    larger = tuple(replace(held, link=replace(held.link, mtu=9000)) for held in shaped.links)
    assert plan(slow, replace(shaped, links=larger)).steps == (
        SetRoot(IFB_NAME, Splitting(9022, 1_562_500), is_update=True),
    )
    unsplit = after(replace(slow, may_split=False), ObservedShaping((SLAVE,)))
    assert plan(slow, unsplit).steps == (SetRoot(IFB_NAME, Splitting(3028, 1_562_500), is_update=True),)
    changed = (
        Qdisc("noqueue", 0),
        Qdisc("fq", FQ_HANDLE, is_intact=False),
        Qdisc("tbf", SPLITTER_HANDLE, splitting=Splitting(3028, 125_000_000)),
        Qdisc("tbf", SPLITTER_HANDLE, is_intact=False, splitting=Splitting(3028, 1_562_500)),
    )
    for root in changed:
        links = tuple(replace(held, root=root) if held.link.name == IFB_NAME else held for held in shaped.links)
        (step,) = plan(slow, replace(shaped, links=links)).steps
        assert isinstance(step, SetRoot)
        assert not step.is_update


def test_egress_and_ingress_of_a_slot_have_their_own_class_ids() -> None:
    steps = plan(BOTH, ObservedShaping((SLAVE,))).steps
    shapers = {step.link: step.class_id for step in steps if isinstance(step, AttachShaper)}
    assert shapers == {IFB_NAME: 7, "eth0": 6}


@given(desires, kernels())
def test_every_step_says_what_it_does_in_words(wanted: DesiredShaping, kernel: ObservedShaping) -> None:
    for step in plan(wanted, kernel).steps:
        assert str(step)[0].islower()
        assert "(" not in str(step)


@given(desires)
def test_what_a_plan_made_is_known_as_touched_and_nothing_else(wanted: DesiredShaping) -> None:
    clean = ObservedShaping((SLAVE, ObservedLink(Link("other", "ifb")), ObservedLink(Link("eth9", "dummy"))))
    touched = {held.link.name for held in after(wanted, clean).links if held.is_touched}
    ingress = Direction.INGRESS in wanted.limits and wanted.may_redirect
    egress = Direction.EGRESS in wanted.limits
    assert touched == ({"eth0"} if ingress or egress else set()) | ({IFB_NAME} if ingress else set())


def gso_max_bytes_of(kernel: ObservedShaping) -> int:
    return kernel.links[0].link.gso_max_bytes


@pytest.mark.parametrize(("allowed", "raised"), [(64_000, 64_000), (None, 25_000)])
def test_no_packet_may_become_longer_than_its_driver_is_known_to_allow(allowed: int | None, raised: int) -> None:
    clean = ObservedShaping((replace(SLAVE, link=replace(SLAVE.link, gso_max_bytes=64_000, tso_max_bytes=allowed)),))
    fast = desired(Direction.EGRESS, bits_per_second=10**10)
    assert after(fast, clean).links[0].link == clean.links[0].link
    bound = after(desired(Direction.EGRESS), clean)
    assert gso_max_bytes_of(bound) == 25_000
    assert gso_max_bytes_of(after(fast, bound)) == raised
    assert gso_max_bytes_of(after(NOTHING, bound)) == raised
