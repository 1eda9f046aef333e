"""Plans the steps from the observed state of a network namespace to the desired one. Pure.

Limits are written before the filters that read them, and cleared after them. A foreign qdisc or filter is never
touched, and a clsact is deleted only if we made it and it holds no foreign filter. Each step leaves behind what the
next plan needs to recognize what is ours, so if a reconciler dies between two steps, the next one continues there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from reconciler.model import (
    GSO_DEFAULT_BYTES,
    HANDLE_CLSACT_FOREIGN,
    HANDLE_CLSACT_OURS,
    IFB_NAME,
    DesiredShaping,
    Filter,
    Link,
    ObservedLink,
    ObservedShaping,
    Problem,
    ProblemKind,
    Qdisc,
    Splitting,
    class_id,
    covered,
    gso_max_bytes,
    splitting,
)
from reconciler.steps import (
    AttachRedirect,
    AttachShaper,
    ClearLimit,
    CreateIfb,
    DeleteClsact,
    DeleteIfb,
    DeleteRoot,
    DetachFilter,
    Plan,
    SetGsoMaxBytes,
    SetRoot,
    SetUp,
    Step,
    WriteLimit,
)
from webhook.common.contract import Direction

MUCH_LOWER: Final = 4
"""If a limit is lowered by more than this factor, the few waiting packets would take more than a tenth of a second."""


def plan(desired: DesiredShaping, observed: ObservedShaping) -> Plan:
    """The steps from the observed state to the desired one. Without limits: those that remove everything of ours."""
    targets = covered(observed.links) if desired.limits else ()
    problems = list(_amount_problems(len(targets), observed.unseen_ipvlan)) if desired.limits else []
    ifb = next((held for held in observed.links if held.link.name == IFB_NAME), None)
    ifb_is_ours = ifb is not None and ifb.link.kind == "ifb"
    limits_ingress = Direction.INGRESS in desired.limits and bool(targets)
    ingress_problem = _ifb_problem(ifb) if limits_ingress else None
    if ingress_problem:
        problems.append(ingress_problem)
    elif limits_ingress and ifb and ifb.intruder(Direction.EGRESS):
        problems.append(_beside_ours(IFB_NAME, Direction.INGRESS))
    ifb_is_possible = ingress_problem is None and desired.may_redirect
    wants = {target.link.name: _wants(desired, target, ifb_is_possible) for target in targets}
    steps: list[Step] = []
    if targets:
        steps += _writes(desired, observed)
    with_ifb = any(want.ingress for want in wants.values())
    if with_ifb:
        wanted = _splitting(desired, targets, ifb)
        steps += _ifb_steps(
            desired, ifb or ObservedLink(Link(IFB_NAME, "ifb", is_up=False)), wanted, is_new=ifb is None
        )
    for target in observed.links:
        if (target is ifb and ifb_is_ours) or target.is_stray_ifb:
            continue
        if target in targets:
            problems += _link_problems(desired, target)
        steps += _link_steps(desired, target, wants.get(target.link.name, _NOTHING))
    # If the kernel cannot redirect, the ifb stays: else it would be made and deleted at each reconcile.
    if ifb_is_ours and not with_ifb and ingress_problem is None and desired.may_redirect:
        steps.append(DeleteIfb())
    steps += [DeleteIfb(held.link.name) for held in observed.links if held.is_stray_ifb]
    unlimited = [direction for direction in observed.limits if not targets or direction not in desired.limits]
    steps += [ClearLimit(desired.slot, direction) for direction in unlimited]
    return Plan(tuple(steps), tuple(problems), _missing(desired, targets, wants))


@dataclass(frozen=True, slots=True)
class _Wants:
    """Which of our filters a link should have, and whether its root should pace."""

    egress: bool = False
    ingress: bool = False
    pacing: bool = False


_NOTHING = _Wants()


def _wants(desired: DesiredShaping, target: ObservedLink, ifb_is_possible: bool) -> _Wants:
    if target.has_no_place:
        return _NOTHING
    egress = Direction.EGRESS in desired.limits and not _blocks(target.intruder(Direction.EGRESS))
    ingress = (
        Direction.INGRESS in desired.limits
        and ifb_is_possible
        and target.link.mode != "l3s"
        and target.intruder(Direction.INGRESS) is None
    )
    return _Wants(egress=egress, ingress=ingress, pacing=egress and not target.root.is_foreign)


def _missing(
    desired: DesiredShaping, targets: tuple[ObservedLink, ...], wants: Mapping[str, _Wants]
) -> dict[Direction, tuple[str, ...]]:
    """For each direction that is asked for: the links where it is not limited, if there are any."""
    without = {
        direction: tuple(target.link.name for target in targets if not _holds(direction, target, wants))
        for direction in desired.limits
    }
    return {direction: links for direction, links in without.items() if links}


def _holds(direction: Direction, target: ObservedLink, wants: Mapping[str, _Wants]) -> bool:
    want = wants[target.link.name]
    if direction is Direction.INGRESS:
        return want.ingress
    return want.egress and (want.pacing or target.root.kind == "fq")  # a foreign fq heeds the stamps, too


def _blocks(intruder: Filter | None) -> bool:
    """Whether a filter leaves no place for the shaper beside it: all filters of one priority are of one kind."""
    return intruder is not None and intruder.kind != "bpf"


def _writes(desired: DesiredShaping, observed: ObservedShaping) -> Iterator[Step]:
    for direction, entry in desired.limits.items():
        if observed.limits.get(direction) != entry:
            yield WriteLimit(desired.slot, direction, entry)


def _amount_problems(links: int, unseen: int) -> Iterator[Problem]:
    """Problems of too few ipvlan links, or too many."""
    if not links:
        message = (
            "the Pod has no ipvlan interface, so there is nothing to limit; is its default network an ipvlan one "
            "(annotation v1.multus-cni.io/default-network)?"
        )
        yield Problem(ProblemKind.NO_IPVLAN, message)
    if unseen:
        message = (
            f"the Pod has more ipvlan interfaces than are looked at: what {unseen} of them send and receive is not "
            "limited; delete those that it does not use, and if it makes them itself, drop NET_ADMIN"
        )
        yield Problem(ProblemKind.TOO_MANY_LINKS, message)


def _ifb_problem(ifb: ObservedLink | None) -> Problem | None:
    """Why no ingress limit is possible, if it is not."""
    if ifb is None:
        return None
    if ifb.link.kind != "ifb":
        message = f"an interface {IFB_NAME} of kind {ifb.link.kind} is in the way, so ingress is not limited; rename it"
    elif ifb.root.is_foreign:
        message = f"{IFB_NAME} has a root qdisc that is not ours, so ingress is not limited; delete it"
    elif ifb.has_no_place or _blocks(ifb.intruder(Direction.EGRESS)):
        message = f"{IFB_NAME} has a qdisc or filter that is not ours, so ingress is not limited; delete it"
    else:
        return None
    return Problem(ProblemKind.CONFLICT, message)


def _link_problems(desired: DesiredShaping, target: ObservedLink) -> Iterator[Problem]:
    name = target.link.name
    if Direction.INGRESS in desired.limits and target.link.mode == "l3s":
        message = (
            f"{name} is an ipvlan interface in mode l3s, which delivers packets past the place where ingress is "
            "limited, so ingress is not limited; use mode l2 or l3"
        )
        yield Problem(ProblemKind.L3S_INGRESS, message)
    ahead = target.ahead_of_redirect
    if Direction.INGRESS in desired.limits and ahead:
        message = (
            f"{name} has a filter that is not ours ({ahead.kind}, priority {ahead.priority}) before the place where "
            "ingress is limited; both stay, but what it accepts itself is not limited; if that is not meant, let it "
            "pass packets on to the next filter"
        )
        yield Problem(ProblemKind.FOREIGN_FILTER, message)
    if Direction.EGRESS in desired.limits and target.root.is_foreign:
        message = (
            f"{name} has a root qdisc that is not ours ({target.root.kind} {target.root.handle >> 16:x}:); it stays, "
            "and unless it is an fq nothing paces what leaves; delete it"
        )
        yield Problem(ProblemKind.CONFLICT, message)
    if target.has_no_place:
        message = (
            f"{name} has a qdisc that is not ours ({target.classifier}) in the place of a clsact for our filters, so "
            "it is not limited; delete it"
        )
        yield Problem(ProblemKind.CONFLICT, message)
    for direction in desired.limits:
        intruder = target.intruder(direction)
        if intruder and direction is Direction.EGRESS and not _blocks(intruder):
            yield _beside_ours(name, direction)
        elif intruder:
            message = f"{name} has a filter that is not ours where the {direction} limit belongs; it stays; delete it"
            yield Problem(ProblemKind.CONFLICT, message)


def _beside_ours(name: str, direction: Direction) -> Problem:
    message = (
        f"{name} has a filter that is not ours at the place of the {direction} limit; both stay, but what it lets pass "
        "before the limit sees it is not limited; delete it"
    )
    return Problem(ProblemKind.CONFLICT, message)


def _splitting(
    desired: DesiredShaping, targets: tuple[ObservedLink, ...], ifb: ObservedLink | None
) -> Splitting | None:
    """What the ifb should split. The size never shrinks: longer packets already queued would be stuck for good."""
    if not desired.may_split:
        return None
    wanted = splitting(desired.limits[Direction.INGRESS].bits_per_second, (target.link for target in targets))
    held = ifb.root.splitting if ifb and ifb.root.is_intact else None
    if wanted is None or held is None or held.size_bytes <= wanted.size_bytes:
        return wanted
    return replace(wanted, size_bytes=held.size_bytes)


def _is_as_wanted(root: Qdisc, wanted: Splitting | None = None) -> bool:
    return root.is_ours and root.is_intact and root.splitting == wanted


def _is_as_made(root: Qdisc, wanted: Splitting | None) -> bool:
    """Whether it splits for a smaller MTU, or not at all for want of a tbf: another rate is the work of others."""
    if wanted is None or not (root.is_ours and root.is_intact):
        return False
    held = root.splitting
    return held is None or held.flow_bytes_per_second == wanted.flow_bytes_per_second


def _must_go(root: Qdisc, wanted: Splitting) -> bool:
    """Whether to drop the packets queued in a tbf: they may not fit, or take long as the old limit was much higher."""
    if root.kind != "tbf":
        return False
    held = root.splitting
    return not root.is_intact or held is None or held.flow_bytes_per_second > MUCH_LOWER * wanted.flow_bytes_per_second


def _ifb_steps(desired: DesiredShaping, ifb: ObservedLink, wanted: Splitting | None, *, is_new: bool) -> Iterator[Step]:
    """Shaper and fq first, up last: an ifb that is up shapes."""
    if is_new:
        yield CreateIfb()
    if not _is_as_wanted(ifb.root, wanted):
        afresh = wanted is not None and _must_go(ifb.root, wanted)
        yield SetRoot(IFB_NAME, wanted, afresh=afresh, is_update=_is_as_made(ifb.root, wanted))
    yield from _shaper_step(desired, ifb, Direction.INGRESS)
    if not ifb.link.is_up:
        yield SetUp(IFB_NAME)


def _link_steps(desired: DesiredShaping, target: ObservedLink, want: _Wants) -> Iterator[Step]:
    """The steps for one link. Removals come last, as our last filter says whether the clsact is ours."""
    yield from _gains(desired, target, want)
    yield from _losses(target, want)


def _losses(target: ObservedLink, want: _Wants) -> Iterator[Step]:
    name = target.link.name
    unbound = min(GSO_DEFAULT_BYTES, target.link.most_gso_bytes)
    was_limited = target.ours(Direction.EGRESS) or target.root.is_ours
    if not want.egress and was_limited and target.link.gso_max_bytes != unbound:
        yield SetGsoMaxBytes(name, unbound)  # while our filter still shows that we set the bound
    ours = [held for held in target.filters if held.is_ours]
    still_used = want.egress or want.ingress
    if not still_used and len(ours) == len(target.filters) and any(held.handle == HANDLE_CLSACT_OURS for held in ours):
        yield DeleteClsact(name)
    else:
        for held in ours:
            if not (want.egress if held.hook is Direction.EGRESS else want.ingress):
                yield DetachFilter(name, held.hook, held.handle)
    if target.root.is_ours and not want.pacing:
        yield DeleteRoot(name, target.root.handle)


def _gains(desired: DesiredShaping, target: ObservedLink, want: _Wants) -> Iterator[Step]:
    name = target.link.name
    if want.pacing and not _is_as_wanted(target.root):
        yield SetRoot(name)
    if want.egress:
        of_the_limit = gso_max_bytes(desired.limits[Direction.EGRESS].bits_per_second)
        size_bytes = min(of_the_limit, target.link.most_gso_bytes)
        yield from _shaper_step(desired, target, Direction.EGRESS)
        if target.link.gso_max_bytes != size_bytes:
            yield SetGsoMaxBytes(name, size_bytes)
    if want.ingress:
        held_redirect = target.ours(Direction.INGRESS)
        if held_redirect is None:
            yield AttachRedirect(name, _handle(target), with_clsact=target.classifier is None and not want.egress)
        elif held_redirect.redirects_to != IFB_NAME:
            yield AttachRedirect(name, held_redirect.handle, replacing=True)


def _shaper_step(desired: DesiredShaping, target: ObservedLink, direction: Direction) -> Iterator[Step]:
    """The shaper sits at the egress of the slave for egress, and at the egress of the ifb for ingress."""
    wanted = class_id(desired.slot, direction)
    held = target.ours(Direction.EGRESS)
    if held and (held.class_id, held.program_id, held.name) == (wanted, desired.program_id, desired.filter_name):
        return
    yield AttachShaper(target.link.name, _handle(target), wanted, with_clsact=target.classifier is None)


def _handle(target: ObservedLink) -> int:
    """The handle that records whether clsact is ours: that of our filter if there is one, else by clsact's absence."""
    held = target.ours(Direction.EGRESS) or target.ours(Direction.INGRESS)
    if held:
        return held.handle
    return HANDLE_CLSACT_OURS if target.classifier is None else HANDLE_CLSACT_FOREIGN
