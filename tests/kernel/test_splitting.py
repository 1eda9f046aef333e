"""Packets that come merged are cut into their segments where one of them would be a burst by itself."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from reconciler.model import IFB_NAME, SPLIT_BELOW
from reconciler.shaping import Shaper
from reconciler.steps import SetRoot
from tests.kernel import clock, lab
from tests.kernel.counted import by_interface, by_limit, dropped_behind_the_shaper
from tests.kernel.lab import Pod, limits
from tests.kernel.modules import kept_out
from tests.kernel.node import Node
from webhook.common.contract import Direction

FAST, SLOW = "200M", "20M"


def test_below_100m_packets_are_cut_and_no_100_ms_carry_much_more_than_the_limit(
    shaper: Shaper, limited: Pod, peer: Pod
) -> None:
    shaper.shape(limited.uid, limited.netns, limits(ingress="10M"))
    packets = lab.sniffed(peer, limited, seconds=5, link=IFB_NAME)
    longest, window = max(packet.length for packet in packets), lab.largest_window_of(packets, 0.1)
    print(f"SPLIT the longest packet {longest} bytes, the largest window of 100 ms {window:.2f} Mbit/s")
    assert longest <= 2 * 1514
    assert window <= 10 * 5 / 4  # segments leave no faster than that; whole packets of 64 KiB make it 15


def test_from_100m_on_packets_come_as_they_are(shaper: Shaper, limited: Pod, peer: Pod) -> None:
    shaper.shape(limited.uid, limited.netns, limits(ingress=str(SPLIT_BELOW)))
    assert max(packet.length for packet in lab.sniffed(peer, limited, seconds=3, link=IFB_NAME)) > 2 * 1514


def test_a_transfer_goes_on_when_its_limit_passes_100m_either_way(shaper: Shaper, limited: Pod, peer: Pod) -> None:
    """What leaves the shaper is not above a limit that is a second old; TCP, which lost a window, has two.

    By the link: at the receiver, what comes behind a lost packet counts in the second in which that comes again.
    """
    shaper.shape(limited.uid, limited.netns, limits(ingress=FAST))
    held = []
    with lab.serving(limited), lab.background(peer, limited, seconds=20) as result:
        lab.flowing(limited)
        began = time.monotonic()
        for number, wanted in enumerate((SLOW, FAST, SLOW), 1):
            lab.sleep(max(0, began + 5 * number - time.monotonic()))
            shaper.shape(limited.uid, limited.netns, limits(ingress=wanted))
            if wanted == SLOW:
                lab.sleep(1)
                held.append(clock.rate(lambda: by_interface(limited, IFB_NAME, "tx_bytes"), 3))
        measured = result()
    print(f"PASSED 100M: {measured.seconds}, held to {held}, stolen {measured.stolen:.2f}")
    assert max(held) <= 20.6  # the counter is read within some hundredths of a second
    assert measured.lowest(slice(7, 9), slice(17, 19)) >= 17
    assert measured.lowest(slice(12, 14)) >= 100


def test_among_many_flows_hardly_one_shares_its_place_in_the_qdisc_with_a_bulk_flow(
    shaper: Shaper, limited: Pod, peer: Pod
) -> None:
    """Of packets without a connected socket fq has but a hash, of 10 bits by default: 512 flows have 40 % of that."""
    shaper.shape(limited.uid, limited.netns, limits(ingress="10M"))
    udp = "tests.kernel.udp"
    with (
        lab.Module(limited, udp, "count", "16"),
        lab.Module(limited, udp, "echo", "16"),
        lab.Module(peer, udp, "many", limited.address, "512", "12", "14") as flood,
    ):
        flood.go()
        lab.sleep(3)
        queue_ms = by_limit(shaper, limited, Direction.INGRESS).queue_ns / 1e6
        with lab.Module(peer, udp, "ask", limited.address, "150") as asking:
            waits = sorted(float(line) for line in asking.lines())
    print(f"SHARED PLACES queue {queue_ms:.0f} ms, a question's answer took {waits[75]:.1f} / {waits[135]:.1f} ms")
    assert queue_ms > 50
    assert dropped_behind_the_shaper(limited) == 0
    assert waits[135] < queue_ms / 2


@contextmanager
def nine_thousand() -> Iterator[None]:
    """The nodes' cards take packets of 9000 bytes as long as the block lasts."""
    try:
        for card in lab.NODES:
            lab.run("ip", "link", "set", card, "mtu", "9000")
        yield
    finally:
        for card in lab.NODES:
            lab.run("ip", "link", "set", card, "mtu", "1500")


@pytest.fixture
def jumbo(wire: None) -> Iterator[None]:  # noqa: ARG001 - the order of set-up
    with nine_thousand():
        yield


@pytest.mark.usefixtures("jumbo")
def test_large_packets_that_nobody_can_cut_pass_if_the_mtu_lets_them(shaper: Shaper, limited: Pod, peer: Pod) -> None:
    ping = ("ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", "8000", limited.address)
    for pod in (limited, peer):
        pod.run("ip", "link", "set", "eth0", "mtu", "1500")
    shaper.shape(limited.uid, limited.netns, limits(ingress="10M"))
    for pod in (limited, peer):
        pod.run("ip", "link", "set", "eth0", "mtu", "9000")
    assert [type(step) for step in shaper.shape(limited.uid, limited.netns, limits(ingress="10M")).steps] == [SetRoot]
    assert "1 received" in peer.run(*ping)
    limited.run("ip", "link", "set", "eth0", "mtu", "1500")  # packets of 9000 may be on their way
    assert shaper.shape(limited.uid, limited.netns, limits(ingress="10M")).steps == ()


def test_a_larger_mtu_of_the_nics_which_nothing_tells_of_in_a_pods_netns_lets_large_packets_pass_at_once(
    node: Node, limited: Pod, peer: Pod
) -> None:
    ping = ("ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", "8000", limited.address)
    node.start(limited, ingress="10M")
    node.rest()
    lab.sleep(2)  # what was told of the Pod's own links has been looked at
    with nine_thousand():
        clock.until(lambda: "1 received" in peer.run(*ping, check=False), seconds=30)
    node.stop(limited)
    assert not [told for told in node.told if told.notice.reason == "BandwidthRepaired"], "nobody changed the Pod"


def test_without_sch_tbf_ingress_and_egress_are_limited_all_the_same(limited: Pod, peer: Pod) -> None:
    with kept_out("sch_tbf"):
        without = Shaper.start(slots=8)
        try:
            outcome = without.shape(limited.uid, limited.netns, limits(ingress="20M", egress="20M"))
            assert not outcome.problems
            assert without.shape(limited.uid, limited.netns, limits(ingress="20M", egress="20M")).steps == ()
            with lab.serving(limited), lab.background(peer, limited, seconds=4) as result:
                measured = result()
            print(f"UNSPLIT: {measured.seconds}, stolen {measured.stolen:.2f}")
            measured.never_above(20, range(1, len(measured.seconds)))
            assert measured.lowest(slice(1, None)) >= 17
        finally:
            without.release(limited.uid, limited.netns)
            without.close()
