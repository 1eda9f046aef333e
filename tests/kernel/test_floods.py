"""A Pod with NET_ADMIN makes filters by the thousand: its own limits hold, and a look at it stays a look."""

import subprocess
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reconciler.kernel import filters, netns
from reconciler.kernel.filters import place_of
from reconciler.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, RTM_NEWTFILTER, Netlink
from reconciler.kernel.observe import observe_netns
from reconciler.kernel.raw import filter_of
from reconciler.model import OUR_HANDLES
from reconciler.netns_scan import scan_netns
from reconciler.sandboxes import Key
from reconciler.shaping import Shaper
from reconciler.steps import AttachRedirect, AttachShaper
from tests.kernel import lab
from tests.kernel.lab import Pod, limits
from webhook.common.contract import Direction

MANY = 5000
BOTH = limits(ingress="20M", egress="20M")


class Counted:
    """Filters as they are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read = 0
        monkeypatch.setattr(filters, "filter_of", self._read)

    def _read(self, *arguments: object) -> object:
        self.read += 1
        return filter_of(*arguments)


def priorities(pod: Pod, *hooks: str, filters_each: int) -> None:
    """A priority for each filter, before and after those of ours."""
    commands = [
        f"filter add dev eth0 {hook} pref {number} matchall action continue"
        for hook in hooks
        for number in range(filters_each + 1, 1, -1)
    ]
    command = ("ip", "netns", "exec", pod.name, "tc", "-batch", "-")
    subprocess.run(command, input="\n".join(commands), text=True, check=True, stdout=subprocess.DEVNULL, timeout=300)


def card(pod: Pod) -> int:
    return int(pod.run("cat", "/sys/class/net/eth0/ifindex"))


def at_our_place(index: int, options: list[tuple[str, object]], *attributes: tuple[str, object]) -> Any:
    """A bpf filter beside the shaper, if its attributes do not say otherwise."""
    message = place_of(index, Direction.EGRESS, 0)
    message["attrs"] = [("TCA_KIND", "bpf"), *attributes, ("TCA_OPTIONS", {"attrs": options})]
    return message


def many(shaper: Shaper, pod: Pod, *attributes: tuple[str, object]) -> None:
    """Filters of one priority, and of one program: to free as many programs takes user-mode-linux minutes."""
    options = [("TCA_BPF_FD", shaper._program.descriptor), ("TCA_BPF_NAME", "another")]
    index = card(pod)
    with netns.opened(pod.netns) as descriptor, Netlink.inside(descriptor) as netlink:
        for _ in range(MANY):
            message = at_our_place(index, options, *attributes)
            netlink.request(message, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL)


FLOODS: dict[str, Callable[[Shaper, Pod], None]] = {
    "at our place": many,
    "each at a priority of its own": lambda _, pod: priorities(pod, "egress", "ingress", filters_each=MANY // 2),
    "of another chain": lambda shaper, pod: many(shaper, pod, ("TCA_CHAIN", 5)),
}


def foreign(pod: Pod) -> int:
    """How many filters there are on eth0 beside ours, as far as the kernel lists them: it leaves out some matchall."""
    shown = "".join(pod.run("tc", "filter", "show", "dev", "eth0", hook) for hook in ("egress", "ingress"))
    lines = [line for line in shown.splitlines() if " handle " in line]
    return len([line for line in lines if "ipvlan-bandwidth:" not in line and "pref 65520 " not in line])


def add_too_long(pod: Pod) -> None:
    """A classic program of as many instructions as may be, which tc cannot send."""
    options = [("TCA_BPF_OPS_LEN", 4096), ("TCA_BPF_OPS", bytes.fromhex("0600000000000000") * 4096)]
    with netns.opened(pod.netns) as descriptor, Netlink.inside(descriptor) as netlink:
        netlink.request(at_our_place(card(pod), options), RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL)


def look_ms(shaper: Shaper, pod: Pod) -> float:
    """The CPU time of a look that finds all as it should be."""
    began = time.process_time()
    assert shaper.shape(pod.uid, pod.netns, BOTH).steps == ()
    return (time.process_time() - began) * 1000


def look_kib(shaper: Shaper, pod: Pod) -> float:
    """The most that Python holds at any moment of such a look, beside what it held before."""
    tracemalloc.start()
    try:
        assert shaper.shape(pod.uid, pod.netns, BOTH).steps == ()
        return tracemalloc.get_traced_memory()[1] / 1024
    finally:
        tracemalloc.stop()


@pytest.fixture
def flooded(limited: Pod) -> Iterator[Pod]:
    """A Pod whose card goes before it does: the kernel frees filters one by one, and keeps the netns until then."""
    yield limited
    limited.run("ip", "link", "del", "eth0")


def test_a_limit_holds_among_a_flood_of_filters(shaper: Shaper, flooded: Pod, peer: Pod) -> None:
    """Each packet meets them all, so they are not more than a look reads of one hook."""
    shaper.shape(flooded.uid, flooded.netns, limits(egress="20M"))
    priorities(flooded, "egress", filters_each=filters.MOST_FILTERS)
    outcome = shaper.shape(flooded.uid, flooded.netns, limits(egress="20M"))
    assert (outcome.steps, outcome.problems) == ((), ())
    assert 10 < lab.transfer(flooded, peer, seconds=2).goodput < 20
    shaper.release(flooded.uid, flooded.netns)


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_among_a_flood_of_filters_ours_are_found_and_put_back_and_a_look_reads_few(
    shaper: Shaper, flooded: Pod, peer: Pod, monkeypatch: pytest.MonkeyPatch, flood: Callable[[Shaper, Pod], None]
) -> None:
    for pod in (flooded, peer):
        shaper.shape(pod.uid, pod.netns, BOTH)
    usual_ms = look_ms(shaper, flooded)
    flood(shaper, flooded)
    counted = Counted(monkeypatch)
    ms = look_ms(shaper, flooded)
    assert counted.read <= filters.MOST_FILTERS_OF_ALL
    kib = look_kib(shaper, flooded)
    print(f"AMONG {MANY} a look reads {counted.read // 2} filters and takes {kib:.0f} KiB")
    print(f"and {ms:.1f} ms of CPU time, without them {usual_ms:.1f}; one at another Pod {look_ms(shaper, peer):.1f}")
    assert kib < 5000
    assert scan_netns([Key(flooded.uid, flooded.netns)]).held == {(flooded.uid, flooded.netns): BOTH}

    for handle in OUR_HANDLES:
        ours = f"protocol all handle {handle:#x}"
        for place in (f"egress pref 1 {ours} bpf", f"ingress pref 65520 {ours} matchall"):
            flooded.run("tc", "filter", "del", "dev", "eth0", *place.split(), check=False)
    put_back = shaper.shape(flooded.uid, flooded.netns, BOTH).steps
    assert [type(step) for step in put_back] == [AttachShaper, AttachRedirect]
    assert shaper.shape(flooded.uid, flooded.netns, BOTH).steps == ()

    for pod in (flooded, peer):
        shaper.release(pod.uid, pod.netns)
    assert "ipvlan-bandwidth:" not in flooded.tc()
    assert foreign(flooded) > 0.98 * MANY


def test_a_filter_that_is_too_long_to_be_listed_hides_nothing(shaper: Shaper, flooded: Pod) -> None:
    """The kernel lists neither it nor what comes after it (EMSGSIZE), so it is asked for ours."""
    shaper.shape(flooded.uid, flooded.netns, BOTH)
    add_too_long(flooded)
    outcome = shaper.shape(flooded.uid, flooded.netns, BOTH)
    assert outcome.steps == ()
    assert [problem.kind for problem in outcome.problems] == ["Conflict"]
    shaper.release(flooded.uid, flooded.netns)
    assert "clsact" in flooded.run("tc", "qdisc", "show", "dev", "eth0")  # the other's filter is on it
    with netns.opened(flooded.netns) as descriptor, Netlink.inside(descriptor) as netlink:
        (eth0,) = [link for link in observe_netns(netlink).links if link.link.name == "eth0"]
    assert [(held.kind, held.priority, held.is_ours) for held in eth0.filters] == [("bpf", 1, False)]
