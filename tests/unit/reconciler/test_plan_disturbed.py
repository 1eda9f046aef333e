"""What others did to a Pod's network: it stays, it is told of, and what can be limited is."""

from dataclasses import replace

import pytest

from reconciler.model import (
    EGRESS_PRIORITY,
    FQ_HANDLE,
    IFB_NAME,
    INGRESS_PRIORITY,
    SHARED_CLSACT,
    Filter,
    Link,
    ObservedLink,
    ObservedShaping,
    ProblemKind,
    Qdisc,
)
from reconciler.plan import plan
from reconciler.steps import (
    AttachShaper,
    DeleteClsact,
    DeleteIfb,
    SetGsoMaxBytes,
    SetRoot,
    WriteLimit,
)
from tests.unit.reconciler.plans import BOTH, NOTHING, SLAVE, after, desired, entry
from webhook.common.contract import Direction


def test_a_pod_without_ipvlan_is_a_problem_and_loses_what_it_had() -> None:
    shaped = after(BOTH, ObservedShaping((SLAVE,)))
    without = replace(shaped, links=tuple(held for held in shaped.links if held.link.name != "eth0"))
    planned = plan(BOTH, without)
    assert [problem.kind for problem in planned.problems] == [ProblemKind.NO_IPVLAN]
    assert after(BOTH, without) == ObservedShaping((), {})


def test_an_ingress_limit_in_mode_l3s_is_a_problem_and_egress_is_shaped() -> None:
    kernel = ObservedShaping((replace(SLAVE, link=Link("eth0", "ipvlan", "l3s")),))
    planned = plan(BOTH, kernel)
    assert [problem.kind for problem in planned.problems] == [ProblemKind.L3S_INGRESS]
    assert [step.class_id for step in planned.steps if isinstance(step, AttachShaper)] == [6]


def _intruder(hook: Direction, kind: str) -> ObservedLink:
    place = EGRESS_PRIORITY if hook is Direction.EGRESS else INGRESS_PRIORITY
    return replace(SLAVE, classifier="clsact", filters=(Filter(hook, kind, place, 1),))


@pytest.mark.parametrize(
    "links",
    [
        (replace(SLAVE, root=Qdisc("tbf", 1 << 16)),),
        (_intruder(Direction.EGRESS, "bpf"),),
        (_intruder(Direction.EGRESS, "matchall"),),
        (_intruder(Direction.INGRESS, "matchall"),),
        (replace(SLAVE, classifier="ingress"),),
        (replace(SLAVE, classifier=SHARED_CLSACT),),
        (SLAVE, ObservedLink(Link(IFB_NAME, "dummy"))),
        (SLAVE, ObservedLink(Link(IFB_NAME, "ifb"), Qdisc("tbf", 1 << 16))),
        (SLAVE, ObservedLink(Link(IFB_NAME, "ifb"), classifier="ingress")),
        (SLAVE, replace(_intruder(Direction.EGRESS, "bpf"), link=Link(IFB_NAME, "ifb"))),
        (SLAVE, replace(_intruder(Direction.EGRESS, "matchall"), link=Link(IFB_NAME, "ifb"))),
    ],
)
def test_what_is_in_the_way_is_one_conflict_that_says_what_to_do(links: tuple[ObservedLink, ...]) -> None:
    problems = plan(BOTH, ObservedShaping(links)).problems
    assert [problem.kind for problem in problems] == [ProblemKind.CONFLICT]
    assert "delete it" in problems[0].message or "rename it" in problems[0].message


@pytest.mark.parametrize(
    "ifb",
    [
        ObservedLink(Link(IFB_NAME, "dummy")),
        ObservedLink(Link(IFB_NAME, "ifb"), Qdisc("tbf", 1 << 16)),
        ObservedLink(Link(IFB_NAME, "ifb"), classifier="ingress"),
        replace(_intruder(Direction.EGRESS, "matchall"), link=Link(IFB_NAME, "ifb")),
    ],
)
def test_where_there_is_no_place_on_the_ifb_ingress_is_not_limited_and_egress_is(ifb: ObservedLink) -> None:
    kernel = ObservedShaping((SLAVE, ifb))
    (problem,) = plan(BOTH, kernel).problems
    assert "so ingress is not limited" in problem.message
    slave, left = after(BOTH, kernel).links
    assert left == ifb
    assert slave.ours(Direction.EGRESS)
    assert not slave.ours(Direction.INGRESS)


def test_ipvlan_links_too_many_to_look_at_are_told_of_while_a_limit_is_wanted() -> None:
    kernel = ObservedShaping((SLAVE,), unseen_ipvlan=3)
    planned = plan(BOTH, kernel)
    assert [problem.kind for problem in planned.problems] == [ProblemKind.TOO_MANY_LINKS]
    assert "3 of them" in planned.problems[0].message
    assert planned.steps == plan(BOTH, ObservedShaping((SLAVE,))).steps
    assert plan(NOTHING, kernel).problems == ()


def test_a_filter_of_others_before_the_redirection_is_told_of_and_both_stay() -> None:
    ahead = Filter(Direction.INGRESS, "matchall", 7, 1)
    kernel = ObservedShaping((replace(SLAVE, classifier="clsact", filters=(ahead,)),))
    planned = plan(BOTH, kernel)
    assert [problem.kind for problem in planned.problems] == [ProblemKind.FOREIGN_FILTER]
    assert "(matchall, priority 7)" in planned.problems[0].message
    assert after(BOTH, kernel).links[0].ours(Direction.INGRESS)
    assert plan(desired(Direction.EGRESS), kernel).problems == ()


def test_clsact_stays_while_a_foreign_filter_is_on_it() -> None:
    shaped = after(BOTH, ObservedShaping((SLAVE,)))
    stranger = Filter(Direction.EGRESS, "bpf", 7, 1)
    shared = replace(
        shaped,
        links=tuple(
            replace(held, filters=(*held.filters, stranger)) if held.link.name == "eth0" else held
            for held in shaped.links
        ),
    )
    assert not any(isinstance(step, DeleteClsact) for step in plan(NOTHING, shared).steps)
    assert any(isinstance(step, DeleteClsact) for step in plan(NOTHING, shaped).steps)


def test_a_redirect_that_lost_its_ifb_is_made_anew() -> None:
    shaped = after(BOTH, ObservedShaping((SLAVE,)))
    lost = replace(
        shaped,
        links=tuple(
            replace(held, filters=tuple(replace(one, redirects_to=None) for one in held.filters))
            for held in shaped.links
            if held.link.name != IFB_NAME
        ),
    )
    assert after(BOTH, lost).links[0].ours(Direction.INGRESS) == shaped.links[0].ours(Direction.INGRESS)


def test_what_somebody_changed_in_place_is_put_back() -> None:
    shaped = after(BOTH, ObservedShaping((SLAVE,)))
    bounds = replace(
        shaped, links=tuple(replace(held, root=Qdisc("fq", FQ_HANDLE, is_intact=False)) for held in shaped.links)
    )
    assert {type(step) for step in plan(BOTH, bounds).steps} == {SetRoot}
    figures = replace(shaped, limits={each: replace(entry(), is_exact=False) for each in Direction})
    assert {type(step) for step in plan(BOTH, figures).steps} == {WriteLimit}
    large = replace(
        shaped, links=tuple(replace(held, link=replace(held.link, gso_max_bytes=60_000)) for held in shaped.links)
    )
    assert plan(BOTH, large).steps == (SetGsoMaxBytes("eth0", 25_000),)


def test_packets_are_as_long_as_before_after_a_limit_whose_filter_somebody_took_away() -> None:
    shaped = after(desired(Direction.EGRESS), ObservedShaping((SLAVE,)))
    (slave,) = shaped.links
    assert slave.link.gso_max_bytes == 25_000
    assert slave.root.is_ours
    robbed = replace(shaped, links=(replace(slave, classifier=None, filters=()),))
    assert after(NOTHING, robbed) == ObservedShaping((SLAVE,))


def test_an_ifb_that_somebody_renamed_is_made_anew_and_the_old_one_goes_last() -> None:
    shaped = after(BOTH, ObservedShaping((SLAVE,)))
    renamed = replace(
        shaped,
        links=tuple(
            replace(
                held,
                link=replace(held.link, name="mine" if held.link.name == IFB_NAME else held.link.name),
                filters=tuple(replace(one, redirects_to=one.redirects_to and "mine") for one in held.filters),
            )
            for held in shaped.links
        ),
    )
    assert plan(BOTH, renamed).steps[-1] == DeleteIfb("mine")
    assert after(BOTH, renamed) == shaped
    assert after(NOTHING, renamed) == ObservedShaping((SLAVE,))


def test_a_bpf_filter_of_others_at_our_place_leaves_ours_in_force() -> None:
    """One added later comes first: what it lets pass, ours does not see. Taking ours away would limit nothing."""
    shaped = after(BOTH, ObservedShaping((SLAVE,)))
    stranger = Filter(Direction.EGRESS, "bpf", EGRESS_PRIORITY, 1)
    joined = replace(shaped, links=tuple(replace(held, filters=(stranger, *held.filters)) for held in shaped.links))
    planned = plan(BOTH, joined)
    assert planned.steps == ()
    assert [problem.kind for problem in planned.problems] == [ProblemKind.CONFLICT] * 2


INGRESS, EGRESS = Direction.INGRESS, Direction.EGRESS
L3S = replace(SLAVE, link=Link("eth0", "ipvlan", "l3s"))
SECOND = replace(SLAVE, link=Link("eth1", "ipvlan", "l2"))
WITH_INGRESS_QDISC = replace(SECOND, classifier="ingress")


@pytest.mark.parametrize(
    ("links", "missing"),
    [
        pytest.param((SLAVE,), {}, id="nothing"),
        pytest.param((L3S,), {INGRESS: ("eth0",)}, id="l3s"),
        pytest.param((SLAVE, WITH_INGRESS_QDISC), {INGRESS: ("eth1",), EGRESS: ("eth1",)}, id="no place on one link"),
        pytest.param((SLAVE, ObservedLink(Link(IFB_NAME, "dummy"))), {INGRESS: ("eth0",)}, id="another's vethbw0"),
        pytest.param((replace(SLAVE, root=Qdisc("tbf", 1 << 16)),), {EGRESS: ("eth0",)}, id="nothing paces"),
        pytest.param((replace(SLAVE, root=Qdisc("fq", 1 << 16)),), {}, id="another's fq paces"),
        pytest.param((_intruder(EGRESS, "bpf"),), {}, id="another's filter beside ours"),
        pytest.param((_intruder(EGRESS, "matchall"),), {EGRESS: ("eth0",)}, id="another's filter in its place"),
        pytest.param((_intruder(INGRESS, "matchall"),), {INGRESS: ("eth0",)}, id="another's redirection in its place"),
        pytest.param((), {}, id="no ipvlan"),
    ],
)
def test_a_plan_says_which_directions_it_cannot_limit_and_where(
    links: tuple[ObservedLink, ...], missing: dict[Direction, tuple[str, ...]]
) -> None:
    kernel = ObservedShaping(links)
    assert plan(BOTH, kernel).missing == missing
    assert plan(BOTH, after(BOTH, kernel)).missing == missing
    assert plan(desired(EGRESS), kernel).missing == {each: on for each, on in missing.items() if each is EGRESS}
    assert plan(NOTHING, kernel).missing == {}


def test_where_the_kernel_cannot_redirect_ingress_is_not_limited_and_egress_is() -> None:
    unredirected = replace(BOTH, may_redirect=False)
    planned = plan(unredirected, ObservedShaping((SLAVE,)))
    assert planned.missing == {INGRESS: ("eth0",)}
    assert [step for step in planned.steps if "ifb" in str(step) or IFB_NAME in str(step)] == []
    assert (
        after(unredirected, ObservedShaping((SLAVE,))).links == after(desired(EGRESS), ObservedShaping((SLAVE,))).links
    )


def test_an_ifb_that_nothing_can_redirect_to_stays_as_making_and_deleting_it_would_be_heard_as_a_change() -> None:
    shaped = after(BOTH, ObservedShaping((SLAVE,)))
    begun = replace(
        shaped,
        links=tuple(
            replace(held, filters=tuple(one for one in held.filters if one.hook is EGRESS)) for held in shaped.links
        ),
    )
    assert plan(replace(BOTH, may_redirect=False), begun).steps == ()
    assert after(desired(EGRESS), begun).links == after(desired(EGRESS), ObservedShaping((SLAVE,))).links
