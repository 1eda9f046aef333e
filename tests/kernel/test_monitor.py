"""Changes in a Pod's netns are heard of from outside."""

import select
import time
from contextlib import closing
from pathlib import Path

import pytest

from reconciler.kernel.monitor import Changes, Monitor
from reconciler.kernel.netlink import Netlink
from reconciler.shaping import Shaper
from tests.kernel import lab
from tests.kernel.lab import Pod, limits

MOST_FIRST, MOST_AGAIN = 16, 8
QUIET_S = 1.5


def heard(monitor: Monitor) -> Changes:
    lab.sleep(0.2)
    ready, _, _ = select.select([monitor], [], [], 0)
    return monitor.read() if ready else Changes(frozenset())


def quiet(monitor: Monitor) -> None:
    """Read until nothing more comes: of a link that was just set up the kernel tells once more, a second later."""
    since = time.monotonic()
    deadline = since + 20
    while time.monotonic() - since < QUIET_S:
        if heard(monitor) != Changes(frozenset()):
            since = time.monotonic()
        assert time.monotonic() < deadline


def test_links_and_filters_that_come_or_go_are_heard_of(shaper: Shaper, limited: Pod, peer: Pod) -> None:
    with closing(Monitor()) as monitor:
        monitor.watch(limited.netns)
        monitor.watch(limited.netns)
        quiet(monitor)
        assert heard(monitor) == Changes(frozenset())
        peer.run("ip", "link", "add", "other", "type", "ifb")
        assert heard(monitor) == Changes(frozenset())
        shaper.shape(limited.uid, limited.netns, limits(egress="10M", ingress="10M"))
        assert heard(monitor) == Changes(frozenset({limited.netns}))
        limited.run("tc", "qdisc", "del", "dev", "eth0", "clsact")
        assert heard(monitor) == Changes(frozenset({limited.netns}))
        limited.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "host0")
        assert heard(monitor) == Changes(frozenset({limited.netns}))
        monitor.unwatch(limited.netns)
        limited.run("ip", "link", "del", "veth0")
        assert heard(monitor) == Changes(frozenset())


@pytest.mark.usefixtures("wire")
def test_a_watched_netns_can_still_go() -> None:
    with closing(Monitor()) as monitor:
        with lab.pod("gone", "eA", "172.51.0.120") as gone:
            monitor.watch(gone.netns)
            lab.run("ip", "netns", "del", gone.name)
        with lab.pod("next", "eA", "172.51.0.120"):  # has the address once the kernel has freed the other's slave
            assert Path("/run/netns/next").exists()


def test_looking_again_asks_the_kernel_little_and_changes_nothing(
    shaper: Shaper, limited: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A starting Pod waits for the first look, and all others for the looks that follow on each change."""
    sent, send = [], Netlink._send

    def count(self: Netlink, data: bytes) -> None:
        sent.append(len(data))
        send(self, data)

    monkeypatch.setattr(Netlink, "_send", count)
    asked = []
    with closing(Monitor()) as monitor:
        monitor.watch(limited.netns)
        quiet(monitor)
        for _ in range(3):
            sent.clear()
            steps = shaper.shape(limited.uid, limited.netns, limits(egress="10M", ingress="10M")).steps
            asked.append((len(steps), len(sent)))
            changed = heard(monitor).netns_paths
            assert bool(changed) == bool(steps)
            quiet(monitor)
    print(f"REQUESTS, as steps and requests: {asked}")
    (steps_first, first), *again = asked
    assert steps_first > 0
    assert first <= MOST_FIRST
    assert all(steps == 0 and requests <= MOST_AGAIN for steps, requests in again)
