"""Looking into one network namespace, and taking all of ours out of it, whether a reconciler runs or not."""

from dataclasses import dataclass

from reconciler.counters import PodCounters, limits_of, pod_counters
from reconciler.kernel import netns
from reconciler.kernel.apply import apply
from reconciler.kernel.netlink import Netlink
from reconciler.kernel.observe import observe_links
from reconciler.kernel.program import Program
from reconciler.model import DesiredShaping, ObservedShaping
from reconciler.plan import plan
from reconciler.slots import Tenant
from reconciler.steps import Plan, Step
from webhook.contract import Direction


@dataclass(frozen=True, slots=True)
class Inspection:
    """What of ours one network namespace holds. `interfaces` are those with a filter or qdisc of ours."""

    interfaces: tuple[str, ...]
    counters: PodCounters | None


def inspect(netns_path: str) -> Inspection:
    """What of ours one network namespace holds, read without a Shaper. Raises ShapingError or OSError."""
    with netns.opened(netns_path) as descriptor, Netlink.inside(descriptor) as netlink:
        links = observe_links(netlink)
    touched = tuple(held.link.name for held in links if held.is_touched)
    for held in links:
        shaper = held.ours(Direction.EGRESS)
        if shaper is None or shaper.program_id is None or shaper.class_id is None:
            continue
        program = Program.adopt(None, [shaper.program_id])
        if program is None:
            continue
        try:
            slot = shaper.class_id // 2
            entries = limits_of(program, slot)
            first = next(iter(entries.values()), None)
            if first is not None:
                tenant = Tenant(first.pod_uid, first.netns_inode)
                return Inspection(touched, pod_counters(program, tenant, slot, netns_path))
        finally:
            program.close()
    return Inspection(touched, None)


def clean(netns_path: str) -> tuple[Step, ...]:
    """Take all of ours out of one network namespace, without loading a program. Raises ShapingError or OSError."""
    with netns.opened(netns_path) as descriptor, Netlink.inside(descriptor) as netlink:
        planned: Plan = plan(DesiredShaping(0, 0, "", {}), ObservedShaping(observe_links(netlink)))
        for step in planned.steps:
            apply(step, netlink, None)
    return planned.steps
