"""What each step does to what is observed, as the kernel would: for tests of the plan."""

from collections.abc import Callable
from dataclasses import replace

from reconciler import model, steps
from reconciler.model import Filter, Link, ObservedLink, ObservedShaping, Qdisc
from reconciler.steps import Step
from webhook.common.contract import Direction

PROGRAM_ID = 7
FILTER_NAME = "ipvlan-bandwidth:0123456789"


def _changed(observed: ObservedShaping, name: str, change: Callable[[ObservedLink], ObservedLink]) -> ObservedShaping:
    assert any(held.link.name == name for held in observed.links), f"no link {name}"
    links = tuple(change(held) if held.link.name == name else held for held in observed.links)
    return replace(observed, links=links)


def _attached(held: ObservedLink, new: Filter, *, with_clsact: bool) -> ObservedLink:
    if with_clsact:
        assert held.classifier is None, "there is a clsact"
        held = replace(held, classifier="clsact")
    assert held.classifier == "clsact", "a filter needs clsact"
    place = (new.hook, new.chain, new.priority)
    at_place = [one.kind for one in held.filters if (one.hook, one.chain, one.priority) == place]
    assert set(at_place) <= {new.kind}, "one priority holds filters of one kind"
    others = tuple(
        one for one in held.filters if (one.hook, one.chain, one.priority, one.handle) != (*place, new.handle)
    )
    return replace(held, filters=(*others, new))


def simulate(observed: ObservedShaping, step: Step) -> ObservedShaping:  # noqa: C901 - one case a step
    """The kernel after a step. Asserts what the kernel would refuse, and that nothing foreign is lost."""
    match step:
        case steps.WriteLimit(direction=direction, entry=entry):
            return replace(observed, limits={**observed.limits, direction: entry})
        case steps.ClearLimit(direction=direction):
            left = {held: entry for held, entry in observed.limits.items() if held is not direction}
            return replace(observed, limits=left)
        case steps.CreateIfb():
            assert all(held.link.name != model.IFB_NAME for held in observed.links)
            made = ObservedLink(Link(model.IFB_NAME, "ifb", is_up=False))
            return replace(observed, links=(*observed.links, made))
        case steps.DeleteIfb(link=name):
            gone = next(held for held in observed.links if held.link.name == name)
            assert gone.link.kind == "ifb"
            return replace(observed, links=tuple(held for held in observed.links if held is not gone))
        case steps.SetUp(link=name):
            return _changed(observed, name, lambda held: replace(held, link=replace(held.link, is_up=True)))
        case steps.SetGsoMaxBytes(link=name, size_bytes=size):

            def with_gso(held: ObservedLink) -> ObservedLink:
                assert size <= held.link.most_gso_bytes
                return replace(held, link=replace(held.link, gso_max_bytes=size))

            return _changed(observed, name, with_gso)
        case steps.SetRoot(link=name, splitting=splitting, afresh=afresh):

            def with_root(held: ObservedLink) -> ObservedLink:
                assert not held.root.is_foreign
                if splitting is None:
                    return replace(held, root=Qdisc("fq", model.FQ_HANDLE))
                if held.root.kind == "tbf" and not afresh:
                    let_pass = held.root.splitting
                    assert let_pass is not None
                    assert let_pass.size_bytes <= splitting.size_bytes, "packets would be stuck"
                return replace(held, root=Qdisc("tbf", model.SPLITTER_HANDLE, splitting=splitting))

            return _changed(observed, name, with_root)
        case steps.DeleteRoot(link=name, handle=handle):

            def without_root(held: ObservedLink) -> ObservedLink:
                assert held.root.is_ours
                assert held.root.handle == handle
                return replace(held, root=Qdisc("noqueue", 0))

            return _changed(observed, name, without_root)
        case steps.DeleteClsact(link=name):

            def without_clsact(held: ObservedLink) -> ObservedLink:
                assert all(one.is_ours for one in held.filters), "filters of others would be lost"
                return replace(held, classifier=None, filters=())

            return _changed(observed, name, without_clsact)
        case steps.AttachShaper(link=name, handle=handle, class_id=class_id, with_clsact=with_clsact):
            shaper = Filter(Direction.EGRESS, "bpf", 1, handle, FILTER_NAME, PROGRAM_ID, class_id)
            return _changed(observed, name, lambda held: _attached(held, shaper, with_clsact=with_clsact))
        case steps.AttachRedirect(link=name, handle=handle, with_clsact=with_clsact, replacing=replacing):
            there = next(held.ours(Direction.INGRESS) for held in observed.links if held.link.name == name)
            assert (there is not None) == replacing, "matchall is made or replaced, not changed"
            assert any(held.link.name == model.IFB_NAME and held.link.is_up for held in observed.links)
            place = model.INGRESS_PRIORITY
            redirect = Filter(Direction.INGRESS, "matchall", place, handle, redirects_to=model.IFB_NAME)
            return _changed(observed, name, lambda held: _attached(held, redirect, with_clsact=with_clsact))
        case steps.DetachFilter(link=name, hook=hook, handle=handle):

            def without_filter(held: ObservedLink) -> ObservedLink:
                ours = held.ours(hook)
                assert ours is not None
                assert ours.handle == handle
                return replace(held, filters=tuple(one for one in held.filters if one is not ours))

            return _changed(observed, name, without_filter)
