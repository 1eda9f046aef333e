"""Inspects one network namespace, and removes all that is ours from it, whether a reconciler runs or not."""

from contextlib import closing
from dataclasses import dataclass

from reconciler.counters import PodCounters, limits_of, pod_counters
from reconciler.kernel import netns
from reconciler.kernel.apply import apply
from reconciler.kernel.errors import read_back
from reconciler.kernel.netlink import Netlink
from reconciler.kernel.observe import observe_netns
from reconciler.kernel.program import Program
from reconciler.model import DesiredShaping, bucket_of
from reconciler.plan import plan
from reconciler.slots import SlotOwner
from reconciler.steps import Plan, Step
from webhook.common.contract import Direction


@dataclass(frozen=True, slots=True)
class Inspection:
    """What one network namespace holds of ours. `interfaces` are those with a filter or qdisc of ours."""

    interfaces: tuple[str, ...]
    counters: PodCounters | None


def inspect(netns_path: str) -> Inspection:
    """What one network namespace holds of ours, read without a Shaper. Raises ShapingError."""
    with netns.opened(netns_path) as descriptor, Netlink.inside(descriptor) as netlink:
        links = observe_netns(netlink).links
    touched = tuple(held.link.name for held in links if held.is_touched)
    for held in links:
        shaper = held.ours(Direction.EGRESS)
        if shaper is None or shaper.program_id is None or shaper.class_id is None:
            continue
        slot, _ = bucket_of(shaper.class_id)
        with read_back("what the shaper counts"):
            counters = _counters(shaper.program_id, slot, netns_path)
        if counters is not None:
            return Inspection(touched, counters)
    return Inspection(touched, None)


def _counters(program_id: int, slot: int, netns_path: str) -> PodCounters | None:
    """What a program has counted in a slot; None where none can be read, or no limit is. Raises OSError."""
    program = Program.adopt(None, [program_id])
    if program is None:
        return None
    with closing(program):
        first = next(iter(limits_of(program, slot).values()), None)
        if first is None or program.state is None:
            return None
        return pod_counters(program, SlotOwner(first.pod_uid, first.netns_inode), slot, netns_path)


def clean(netns_path: str) -> tuple[Step, ...]:
    """Remove all that is ours from one network namespace, without loading a program. Raises ShapingError."""
    with netns.opened(netns_path) as descriptor, Netlink.inside(descriptor) as netlink:
        planned: Plan = plan(DesiredShaping(0, 0, "", {}), observe_netns(netlink))
        for step in planned.steps:
            apply(step, netlink, None)
    return planned.steps
