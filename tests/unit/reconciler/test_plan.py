"""The plan reaches what is desired in one go, and never touches what is foreign."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import (
    EGRESS_PRIORITY,
    FQ_HANDLE,
    HANDLE_CLSACT_FOREIGN,
    HANDLE_CLSACT_OURS,
    IFB_NAME,
    INGRESS_PRIORITY,
    SPLITTER_HANDLE,
    DesiredShaping,
    Filter,
    LimitEntry,
    Link,
    ObservedLink,
    ObservedShaping,
    ProblemKind,
    Qdisc,
    Splitting,
)
from reconciler.plan import plan
from reconciler.steps import (
    AttachShaper,
    ClearLimit,
    DeleteClsact,
    DeleteIfb,
    SetGsoMaxBytes,
    SetRoot,
    WriteLimit,
)
from tests.unit.reconciler.simulated_kernel import FILTER_NAME, PROGRAM_ID, simulate
from webhook.contract import Direction

UID = "5f1c6f0a-0000-4000-8000-000000000001"
SLAVE = ObservedLink(Link("eth0", "ipvlan", "l2"))


def entry(bits_per_second: int = 100_000_000) -> LimitEntry:
    return LimitEntry(bits_per_second, 1, UID, 4026532000)


def desired(*directions: Direction, bits_per_second: int = 100_000_000) -> DesiredShaping:
    return DesiredShaping(3, PROGRAM_ID, FILTER_NAME, {each: entry(bits_per_second) for each in directions})


BOTH = desired(Direction.INGRESS, Direction.EGRESS)
NOTHING = desired()

roots = st.sampled_from(
    [
        Qdisc("noqueue", 0),
        Qdisc("pfifo_fast", 0),
        Qdisc("fq", FQ_HANDLE),
        Qdisc("fq", FQ_HANDLE, is_intact=False),
        Qdisc("tbf", SPLITTER_HANDLE, splitting=Splitting(3028, 156_250)),
        Qdisc("tbf", SPLITTER_HANDLE, splitting=Splitting(9022, 156_250)),
        Qdisc("tbf", SPLITTER_HANDLE, is_intact=False),
        Qdisc("tbf", SPLITTER_HANDLE, is_intact=False, splitting=Splitting(60_000, 156_250)),
        Qdisc("tbf", 1 << 16),
        Qdisc("fq", 5 << 16),
    ]
)
handles = st.sampled_from([HANDLE_CLSACT_OURS, HANDLE_CLSACT_FOREIGN])
foreign_filters = st.builds(
    Filter,
    hook=st.sampled_from(Direction),
    kind=st.sampled_from(["bpf", "matchall", "u32"]),
    priority=st.sampled_from([EGRESS_PRIORITY, 7, INGRESS_PRIORITY]),
    handle=st.sampled_from([1, 2]),
    name=st.sampled_from(["", "cil_from_container"]),
)
our_filters = st.one_of(
    st.builds(
        Filter,
        hook=st.just(Direction.EGRESS),
        kind=st.just("bpf"),
        priority=st.just(EGRESS_PRIORITY),
        handle=handles,
        name=st.sampled_from([FILTER_NAME, "ipvlan-bandwidth:older"]),
        program_id=st.sampled_from([PROGRAM_ID, 3]),
        class_id=st.sampled_from([6, 7, 8]),
    ),
    st.builds(
        Filter,
        hook=st.just(Direction.INGRESS),
        kind=st.just("matchall"),
        priority=st.just(INGRESS_PRIORITY),
        handle=handles,
        redirects_to=st.sampled_from([IFB_NAME, None]),
    ),
)


@st.composite
def observed_links(draw: st.DrawFn, link: Link) -> ObservedLink:
    """A link as ours, others' or nobody's work; one filter of ours at most at a hook."""
    classifier = draw(st.sampled_from([None, "clsact", "ingress"]))
    filters: list[Filter] = []
    if classifier == "clsact":
        ours = {each.hook: each for each in draw(st.lists(our_filters, max_size=2))}
        foreign = {
            (each.hook, each.priority, each.handle): each for each in draw(st.lists(foreign_filters, max_size=2))
        }
        filters = [*ours.values(), *foreign.values()]
    gso, tso = draw(st.sampled_from([(65536, 65536), (25000, 65536), (62780, 62780), (25000, 62780)]))
    mtu = draw(st.sampled_from([1500, 9000]))
    state = replace(link, is_up=draw(st.booleans()), gso_max_bytes=gso, tso_max_bytes=tso, mtu=mtu)
    return ObservedLink(state, draw(roots), classifier, tuple(filters))


@st.composite
def kernels(draw: st.DrawFn) -> ObservedShaping:
    possible = [
        Link("lo", ""),
        Link("eth0", "ipvlan", draw(st.sampled_from(["l2", "l3", "l3s"]))),
        Link("eth1", "ipvlan", "l2"),
        Link("veth0", "veth"),
        Link("veth1", "veth"),
        Link(IFB_NAME, draw(st.sampled_from(["ifb", "dummy"]))),
        Link("renamed", "ifb"),
    ]
    chosen = draw(st.lists(st.sampled_from(possible), unique=True))
    limits = draw(
        st.dictionaries(
            st.sampled_from(Direction), st.sampled_from([entry(), entry(1000), replace(entry(), is_exact=False)])
        )
    )
    return ObservedShaping(tuple(draw(observed_links(link)) for link in chosen), limits)


desires = st.builds(
    lambda directions, rate: desired(*directions, bits_per_second=rate),
    st.sets(st.sampled_from(Direction)),
    st.sampled_from([1000, 20_000_000, 100_000_000, 10**15]),
)


def after(wanted: DesiredShaping, kernel: ObservedShaping) -> ObservedShaping:
    for step in plan(wanted, kernel).steps:
        kernel = simulate(kernel, step)
    return kernel


def foreign(kernel: ObservedShaping) -> set[tuple[object, ...]]:
    """All that is not ours."""
    links = {(held.link.name, held.link.kind) for held in kernel.links if held.link.kind != "ifb"}
    roots = {(held.link.name, held.root) for held in kernel.links if held.root.is_foreign and held.link.kind != "ifb"}
    filters = {
        (held.link.name, one)
        for held in kernel.links
        for one in held.filters
        if not one.is_ours and held.link.kind != "ifb"
    }
    return {*links, *roots, *filters}


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


def test_egress_and_ingress_of_a_slot_have_their_own_class_ids() -> None:
    steps = plan(BOTH, ObservedShaping((SLAVE,))).steps
    shapers = {step.link: step.class_id for step in steps if isinstance(step, AttachShaper)}
    assert shapers == {IFB_NAME: 7, "eth0": 6}


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


@given(desires, kernels())
def test_every_step_says_what_it_does_in_words(wanted: DesiredShaping, kernel: ObservedShaping) -> None:
    for step in plan(wanted, kernel).steps:
        assert str(step)[0].islower()
        assert "(" not in str(step)


@given(desires)
def test_what_a_plan_made_is_known_as_touched_and_nothing_else(wanted: DesiredShaping) -> None:
    clean = ObservedShaping((SLAVE, ObservedLink(Link("other", "ifb")), ObservedLink(Link("eth9", "dummy"))))
    touched = {held.link.name for held in after(wanted, clean).links if held.is_touched}
    ifb = {IFB_NAME} if Direction.INGRESS in wanted.limits else set()
    assert touched == ({"eth0"} | ifb if wanted.limits else set())
