"""What a Pod's network holds, the limits that packets meet there, and those that tests give it."""

import os
import re
from dataclasses import dataclass, replace

from reconciler.kernel import netns
from reconciler.kernel.netlink import Netlink
from reconciler.kernel.observe import observe_netns
from reconciler.model import IFB_NAME, ObservedLink
from reconciler.netns_scan import scan_netns
from reconciler.sandboxes import Key
from tests.kernel.lab import Pod, limits
from tests.losses import nothing_lost
from webhook.common.contract import Direction, Limits

# Emulated CPUs are an order of magnitude slower: there the kernel's ways are tried, not the time.
SECOND = 5.0 if "EMULATED" in os.environ else 1.0
ANNOTATED = {"ingress": "100M", "egress": "100M"}
RELEASE = tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])
NOTHING, BOTH, OTHERS = limits(), limits(ingress="100M", egress="100M"), limits(ingress="20M", egress="50M")
INGRESS, EGRESS = limits(ingress="100M"), limits(egress="100M")
FLUSHED = "ip link del vethbw0; tc qdisc del dev eth0 clsact; tc qdisc del dev eth0 root"
"""By a shell in the Pod's network namespace: nothing that limits is left."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One kind of plan: how the Pod is before it, and what is wanted."""

    before: Limits
    wanted: Limits
    spoil: tuple[tuple[str, ...], ...] = ()


PLANS = {
    "first shaping": Plan(NOTHING, BOTH),
    "first shaping of ingress": Plan(NOTHING, INGRESS),
    "other rates": Plan(BOTH, OTHERS),
    "egress removed": Plan(BOTH, INGRESS),
    "ingress removed": Plan(BOTH, EGRESS),
    "ingress for egress": Plan(EGRESS, INGRESS),
    "removal": Plan(BOTH, NOTHING),
    "repair of the ifb": Plan(BOTH, BOTH, (("ip", "link", "del", IFB_NAME),)),
    "repair of all": Plan(
        BOTH,
        BOTH,
        (
            ("ip", "link", "del", IFB_NAME),
            ("tc", "qdisc", "del", "dev", "eth0", "clsact"),
            ("tc", "qdisc", "del", "dev", "eth0", "root"),
        ),
    ),
}


def state(pod: Pod) -> set[str]:
    """All that traffic control holds, and what matters of the links, in words that stay when it is made anew."""
    held = re.sub(r"index \d+ ref \d+ bind \d+|refcnt \d+", "", pod.tc())
    links = re.findall(r"\d+: (\w+)\S*: <([^>]*)>.*?(gso_max_size \d+)", pod.run("ip", "-d", "link"), re.DOTALL)
    ups = {f"{name} {'UP' in flags} {size}" for name, flags, size in links}
    return {line.strip() for line in held.splitlines()} | ups


def held(pod: Pod) -> tuple[ObservedLink, ...]:
    """What the Pod's netns holds, but for which program and slot, and the indexes: what is made anew has another."""
    with netns.opened(pod.netns) as descriptor, Netlink.inside(descriptor) as netlink:
        links = observe_netns(netlink).links
    return tuple(
        replace(link, index=0, filters=tuple(replace(one, program_id=None, class_id=None) for one in link.filters))
        for link in links
    )


def in_force(pod: Pod) -> Limits:
    """The limits that packets meet: the filters find them in the map, and fq paces."""
    key = Key(pod.uid, pod.netns)
    found = scan_netns([key]).held.get(key, NOTHING)
    links = {link.link.name: link for link in held(pod)}
    ifb, slave = links.get(IFB_NAME), links["eth0"]
    redirect = slave.ours(Direction.INGRESS)
    met = {}
    if slave.ours(Direction.EGRESS) and slave.root.is_ours:
        met[Direction.EGRESS] = found.egress
    if redirect and redirect.redirects_to == IFB_NAME and ifb and ifb.link.is_up and ifb.root.is_ours:
        met[Direction.INGRESS] = found.ingress
    return Limits.of(met)


def stays(before: Limits, wanted: Limits) -> list[Direction]:
    return [each for each in Direction if before.get(each) and wanted.get(each)]


def check(before: Limits, between: Limits, wanted: Limits, when: str) -> None:
    """Raise LostError for a direction that was limited, and is to be, and is without either limit meanwhile."""
    nothing_lost(
        f"{direction} is limited to {between.get(direction)} {when}"
        for direction in stays(before, wanted)
        if between.get(direction) not in {before.get(direction), wanted.get(direction)}
    )
