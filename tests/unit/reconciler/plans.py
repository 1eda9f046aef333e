"""Wishes and kernels to plan for, given and generated."""

from dataclasses import replace

from hypothesis import strategies as st

from reconciler.model import (
    EGRESS_PRIORITY,
    FQ_HANDLE,
    HANDLE_CLSACT_FOREIGN,
    HANDLE_CLSACT_OURS,
    IFB_NAME,
    INGRESS_PRIORITY,
    SHARED_CLSACT,
    SPLITTER_HANDLE,
    DesiredShaping,
    Filter,
    LimitEntry,
    Link,
    ObservedLink,
    ObservedShaping,
    Qdisc,
    Splitting,
)
from reconciler.plan import plan
from tests.unit.reconciler.simulated_kernel import FILTER_NAME, PROGRAM_ID, simulate
from webhook.common.contract import Direction

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
    chain=st.sampled_from([0, 0, 5]),
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
    classifier = draw(st.sampled_from([None, "clsact", "ingress", SHARED_CLSACT]))
    filters: list[Filter] = []
    if classifier == "clsact":
        ours = {each.hook: each for each in draw(st.lists(our_filters, max_size=2))}
        foreign = {
            (each.hook, each.chain, each.priority, each.handle): each
            for each in draw(st.lists(foreign_filters, max_size=2))
        }
        both = [*ours.values(), *foreign.values()]
        # All filters of one priority are of one kind (net/sched/cls_api.c, tcf_chain_tp_find).
        kinds = {(each.hook, each.priority): each.kind for each in reversed(both)}
        filters = [each for each in both if each.kind == kinds[each.hook, each.priority]]
    known = [(65536, 65536), (25000, 65536), (62780, 62780), (25000, 62780)]
    gso, tso = draw(st.sampled_from([*known, (65536, None), (64000, None), (25000, None)]))
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
    lambda directions, rate, **kernel_has: replace(desired(*directions, bits_per_second=rate), **kernel_has),
    st.sets(st.sampled_from(Direction)),
    st.sampled_from([1000, 20_000_000, 100_000_000, 10**15]),
    may_split=st.booleans(),
    may_redirect=st.booleans(),
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
