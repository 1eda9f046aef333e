"""A reconciler that dies between any two steps, and one that comes after it: nothing is left, nothing was unshaped."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import IFB_NAME, DesiredShaping, Link, ObservedLink, ObservedShaping, class_id, covered
from reconciler.plan import plan
from tests.unit.reconciler.plans import BOTH, NOTHING, SLAVE, after, desires, kernels
from tests.unit.reconciler.simulated_kernel import PROGRAM_ID, simulate
from webhook.common.contract import Direction

OLDER = PROGRAM_ID - 1
CLEAN = ObservedShaping((ObservedLink(Link("lo", "")), SLAVE, ObservedLink(Link("veth0", "veth"))))


def by_an_older_program(kernel: ObservedShaping) -> ObservedShaping:
    """What a Pod looks like to a new program: its filters are those of another, whose maps are not ours to see."""

    def older(held: ObservedLink) -> ObservedLink:
        filters = tuple(replace(one, program_id=OLDER) if one.program_id else one for one in held.filters)
        return replace(held, filters=filters)

    return ObservedShaping(tuple(map(older, kernel.links)), {})


shaped_pods = st.builds(after, desires, st.just(CLEAN))
pods = st.one_of(kernels(), shaped_pods, st.builds(by_an_older_program, shaped_pods))


def limits(held: ObservedLink, direction: Direction, kernel: ObservedShaping, slot: int) -> bool:
    """Whether the shaper on a link finds a limit, and packets are paced by it."""
    ours = held.ours(Direction.EGRESS)
    is_deaf = held.link.kind == "ifb" and not held.link.is_up  # one that is down drops what is redirected to it
    if ours is None or is_deaf or not (held.root.kind == "fq" or held.root.is_ours):
        return False
    if ours.program_id == PROGRAM_ID:
        return ours.class_id == class_id(slot, direction) and direction in kernel.limits
    return ours.program_id == OLDER and ours.class_id == class_id(slot, direction)


def shaped(kernel: ObservedShaping, slot: int) -> set[tuple[str, Direction]]:
    """The links and directions that are limited."""
    ifb = next((held for held in kernel.links if held.link.name == IFB_NAME and held.link.kind == "ifb"), None)
    ifb_limits = ifb is not None and limits(ifb, Direction.INGRESS, kernel, slot)
    found = set()
    for held in kernel.links:
        if held.link.name == IFB_NAME:  # which limits others, and receives nothing itself
            continue
        redirect = held.ours(Direction.INGRESS)
        if redirect and redirect.redirects_to == IFB_NAME and held.link.mode != "l3s" and ifb_limits:
            found.add((held.link.name, Direction.INGRESS))
        if limits(held, Direction.EGRESS, kernel, slot):
            found.add((held.link.name, Direction.EGRESS))
    return found


@given(desires, pods, st.data())
def test_whatever_was_done_before_a_crash_the_next_plan_ends_where_the_first_would_have(
    wanted: DesiredShaping, kernel: ObservedShaping, data: st.DataObject
) -> None:
    steps = plan(wanted, kernel).steps
    crashed = kernel
    for step in steps[: data.draw(st.integers(0, len(steps)))]:
        crashed = simulate(crashed, step)
    assert after(wanted, crashed) == after(wanted, kernel)


@given(desires, shaped_pods, st.data())
def test_a_pod_that_no_longer_wants_what_was_begun_is_as_it_was_before(
    wanted: DesiredShaping, kernel: ObservedShaping, data: st.DataObject
) -> None:
    steps = plan(wanted, kernel).steps
    for step in steps[: data.draw(st.integers(0, len(steps)))]:
        kernel = simulate(kernel, step)
    assert after(NOTHING, kernel) == CLEAN


@given(desires, pods)
def test_no_step_leaves_unshaped_what_was_shaped_before_and_is_after(
    wanted: DesiredShaping, kernel: ObservedShaping
) -> None:
    stays = shaped(kernel, wanted.slot) & shaped(after(wanted, kernel), wanted.slot)
    for step in plan(wanted, kernel).steps:
        kernel = simulate(kernel, step)
        assert stays <= shaped(kernel, wanted.slot), step


@given(desires, kernels())
def test_what_a_plan_says_that_it_limits_is_limited_when_it_is_done_and_nothing_else(
    wanted: DesiredShaping, kernel: ObservedShaping
) -> None:
    missing = plan(wanted, kernel).missing
    done = after(wanted, kernel)
    limited = shaped(done, wanted.slot)
    expected = {
        (held.link.name, direction)
        for held in covered(kernel.links)
        for direction in wanted.limits
        if held.link.name not in missing.get(direction, ())
    }
    assert limited == expected


def test_a_pod_of_an_older_program_counts_as_shaped() -> None:
    old = by_an_older_program(after(BOTH, CLEAN))
    assert len(shaped(old, 3)) == 4
