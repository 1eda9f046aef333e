"""Inspects one network namespace, and removes all that is ours from it, whether a reconciler runs or not."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field

from reconciler.counters import PodCounters, limits_of, pod_counters
from reconciler.kernel import netns
from reconciler.kernel.apply import apply
from reconciler.kernel.errors import read_back
from reconciler.kernel.netlink import Netlink
from reconciler.kernel.observe import observe_netns
from reconciler.kernel.program import Program
from reconciler.model import DesiredShaping, LimitEntry, bucket_of, buckets
from reconciler.plan import plan
from reconciler.slots import SlotOwner
from reconciler.steps import Plan, Step
from webhook.common.contract import Direction


@dataclass(frozen=True, slots=True)
class Inspection:
    """What one network namespace holds of ours. `interfaces` are those with a filter or qdisc of ours.

    `uncounted`: without counters, the limits of another version's program that keeps its counters in its own layout.
    """

    interfaces: tuple[str, ...]
    counters: PodCounters | None
    uncounted: Mapping[Direction, LimitEntry] = field(default_factory=dict)


def inspect(netns_path: str) -> Inspection:
    """What one network namespace holds of ours, read without a Shaper. Raises ShapingError."""
    with netns.opened(netns_path) as descriptor, Netlink.inside(descriptor) as netlink:
        links = observe_netns(netlink).links
    touched = tuple(held.link.name for held in links if held.is_touched)
    uncounted: dict[Direction, LimitEntry] = {}
    for program_id, class_id in buckets(links):
        slot, _ = bucket_of(class_id)
        with read_back("what the shaper counts"):
            limits, counters = _read(program_id, slot, netns_path)
        if counters is not None:
            return Inspection(touched, counters)
        uncounted = uncounted or limits
    return Inspection(touched, None, uncounted)


def _read(program_id: int, slot: int, netns_path: str) -> tuple[dict[Direction, LimitEntry], PodCounters | None]:
    """The limits that a program holds in a slot, and its counters; of either, only what can be read. Raises OSError."""
    program = Program.adopt(program_id)
    if program is None:
        return {}, None
    with closing(program):
        limits = limits_of(program, slot)
        first = next(iter(limits.values()), None)
        if first is None or program.state is None:
            return limits, None
        return limits, pod_counters(program, SlotOwner(first.pod_uid, first.netns_inode), slot, netns_path)


def clean(netns_path: str) -> tuple[Step, ...]:
    """Remove all that is ours from one network namespace, without loading a program. Raises ShapingError."""
    with netns.opened(netns_path) as descriptor, Netlink.inside(descriptor) as netlink:
        planned: Plan = plan(DesiredShaping(0, 0, "", {}), observe_netns(netlink))
        for step in planned.steps:
            apply(step, netlink, None)
    return planned.steps
