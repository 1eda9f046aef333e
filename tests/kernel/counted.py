"""What a Pod's limits, its qdiscs and its kernel's IP have counted."""

import json

from reconciler.counters import DirectionCounters, PodCounters
from reconciler.kernel import netns
from reconciler.shaping import Shaper
from reconciler.slots import SlotOwner
from tests.kernel.lab import Pod
from webhook.common.contract import Direction


def by_limit(shaper: Shaper, pod: Pod, direction: Direction) -> DirectionCounters:
    """What its limit of a direction has let pass, and what not."""
    return of_pod(shaper, pod).directions[direction]


def of_pod(shaper: Shaper, pod: Pod) -> PodCounters:
    """What is counted of it by either limit, since it got its slot; not of another test's Pod of the same name."""
    inode = netns.inode(pod.netns)
    assert inode is not None
    (found,) = shaper.counters([SlotOwner(pod.uid, inode)])
    return found


def dropped_behind_the_shaper(pod: Pod) -> int:
    """By all of our qdiscs: what the shaper has admitted is to leave."""
    qdiscs = [each for each in json.loads(pod.run("tc", "-s", "-j", "qdisc")) if each["kind"] in {"fq", "tbf"}]
    assert qdiscs
    return sum(each["drops"] for each in qdiscs)


def by_interface(pod: Pod, name: str, what: str) -> int:
    """What one of its interfaces has counted, as sysfs names it."""
    return int(pod.run("cat", f"/sys/class/net/{name}/statistics/{what}"))


def by_ip(pod: Pod, file: str, of: str, name: str) -> int:
    """A counter of its netns by its name, as `nstat` reads it: of a file in /proc/net, and a kind of lines there."""
    lines = pod.run("cat", f"/proc/net/{file}").splitlines()
    names, values = [line.split() for line in lines if line.startswith(f"{of}:")]
    return int(values[names.index(name)])
