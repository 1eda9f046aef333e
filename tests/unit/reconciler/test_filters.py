"""However many filters a hook has, and in whatever order they are listed: what the plan asks of them stays the same."""

import errno
import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.kernel import filters
from reconciler.kernel.errors import NetlinkError
from reconciler.kernel.filters import OUR_KINDS, OUR_PRIORITIES, PARENTS, Filters
from reconciler.kernel.netlink import Listing
from reconciler.kernel.observe import MOST_LINKS
from reconciler.model import (
    FILTER_NAME_PREFIX,
    HANDLE_CLSACT_FOREIGN,
    HANDLE_CLSACT_OURS,
    INGRESS_PRIORITY,
    OUR_HANDLES,
    Filter,
    Link,
    ObservedLink,
)
from tests.unit.reconciler.link_messages import attribute
from webhook.common.contract import Direction

EGRESS, INGRESS = Direction.EGRESS, Direction.INGRESS
TOO_LONG = "too long"
ETH0 = 2


def message(held: Filter, handle: int | None = None) -> bytes:
    handle = held.handle if handle is None else handle
    fixed = struct.pack("=16x4xiIII", ETH0, handle, PARENTS[held.hook], held.priority << 16 | 0x0300)
    name = attribute(2, attribute(7, held.name.encode() + b"\0")) if held.name else b""
    return fixed + attribute(1, held.kind.encode() + b"\0") + attribute(11, struct.pack("=I", held.chain)) + name


@dataclass
class Kernel:
    """Lists as the kernel does: chain by chain in the order of their making, by priority, then as they come."""

    held: list[Filter]
    read: int = 0
    refuses: int | None = None
    asked: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.held = sorted(self.held, key=lambda one: (-one.chain, one.priority))

    def _refuse(self) -> None:
        if self.refuses is not None:
            raise NetlinkError(self.refuses, "no")

    def dump(self, request, _, most):
        self._refuse()
        wanted = dict(request["attrs"])
        listed, priorities = [], set()
        for one in self.held:
            if len(listed) > most:
                break
            place = one.chain, one.priority
            other_chain = one.chain != wanted.get("TCA_CHAIN", one.chain)
            if request["parent"] != PARENTS[one.hook] or other_chain:
                continue
            if request["info"] >> 16 not in {0, one.priority}:
                continue
            listed += [message(one, 0)] if place not in priorities else []
            priorities.add(place)
            if one.name == TOO_LONG:
                break
            listed.append(message(one))
        else:
            one = None
        self.read += min(most, len(listed))
        if len(listed) > most:
            return Listing(listed[:most], are_all=False)
        return Listing(listed, are_all=one is None, before_too_long=one is not None)

    def ask(self, request, _):
        self._refuse()
        self.asked.append(request["handle"])
        for one in self.held:
            place = (PARENTS[one.hook], one.priority, one.handle, one.chain)
            if place == (request["parent"], request["info"] >> 16, request["handle"], 0):
                if one.kind != dict(request["attrs"])["TCA_KIND"]:
                    raise NetlinkError(errno.EINVAL, "Specified filter kind does not match existing one")
                return message(one)
        raise NetlinkError(errno.ENOENT, "Specified filter handle not found")


def ours(hook: Direction, handle: int = HANDLE_CLSACT_OURS) -> Filter:
    name = FILTER_NAME_PREFIX + "0123456789" if hook is EGRESS else ""
    return Filter(hook, OUR_KINDS[hook], OUR_PRIORITIES[hook], handle, name=name)


def link(held: tuple[Filter, ...]) -> ObservedLink:
    return ObservedLink(Link("eth0", "ipvlan", "l2"), classifier="clsact", filters=held)


def judged(held: ObservedLink) -> list[object]:
    """What the plan asks of a link's filters."""
    intruders = [held.intruder(hook) for hook in Direction]
    return [
        [held.ours(hook) for hook in Direction],
        [intruder and (intruder.kind, intruder.priority) for intruder in intruders],
        held.ahead_of_redirect and held.ahead_of_redirect.priority,
        all(one.is_ours for one in held.filters),
    ]


def read(kernel: Kernel) -> ObservedLink:
    return link(Filters(kernel, {}).of(ETH0))


foreign = st.builds(
    Filter,
    st.sampled_from(Direction),
    st.just("bpf"),
    st.sampled_from([1, 2, 3, 4, 7, INGRESS_PRIORITY]),
    st.one_of(st.sampled_from(sorted(OUR_HANDLES)), st.integers(1, 40)),
    name=st.sampled_from(["", "", "somebody", TOO_LONG]),
    chain=st.sampled_from([0, 0, 0, 5]),
)
own = st.lists(st.sampled_from([ours(EGRESS), ours(INGRESS), ours(INGRESS, HANDLE_CLSACT_FOREIGN)]), unique=True)


@given(st.lists(foreign, max_size=30, unique_by=lambda one: (one.hook, one.priority, one.handle, one.chain)), own)
def test_what_the_plan_asks_is_answered_as_if_all_were_read(others: list[Filter], own: list[Filter]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "MOST_FILTERS", 5)
        patch.setattr(filters, "_FEW", 3)
        taken = {(one.hook, one.priority) for one in own if one.hook is INGRESS}  # by one of another kind
        taken |= {(one.hook, one.priority, one.handle, one.chain) for one in own}
        others = [
            one
            for one in others
            if taken.isdisjoint({(one.hook, one.priority), (one.hook, one.priority, one.handle, one.chain)})
        ]
        all_of_them = sorted([*others, *own], key=lambda one: (-one.chain, one.priority))
        assert judged(read(Kernel([*others, *own]))) == judged(link(tuple(all_of_them)))


def test_a_usual_hook_is_one_request_and_of_a_flood_few_are_read_on_all_links_together() -> None:
    usual = Kernel([ours(EGRESS), ours(INGRESS)])
    assert read(usual).filters == (ours(INGRESS), ours(EGRESS))
    assert usual.asked == []
    hooks = [Filter(hook, "bpf", 7, number) for hook in Direction for number in range(1, 1200)]
    flooded = Kernel([*hooks, ours(EGRESS), ours(INGRESS)])
    reader = Filters(flooded, {})
    for _ in range(MOST_LINKS):
        observed = link(reader.of(ETH0))
        assert [observed.ours(hook) for hook in Direction] == [ours(hook) for hook in Direction]
    assert flooded.read < filters.MOST_FILTERS_OF_ALL + MOST_LINKS * 2 * 3 * filters._FEW


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EINVAL, errno.ENODEV])
def test_a_clsact_that_went_meanwhile_holds_nothing(code: int) -> None:
    assert read(Kernel([ours(EGRESS)], refuses=code)).filters == ()


def test_any_other_refusal_is_an_error() -> None:
    with pytest.raises(NetlinkError):
        read(Kernel([], refuses=errno.ENOBUFS))
