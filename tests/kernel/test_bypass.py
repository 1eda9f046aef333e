"""What a Pod sends past its egress limit is found, and nothing else is taken for it."""

import re

import pytest

from reconciler.bypass import Sample, Traffic, unshaped
from reconciler.shaping import Shaper
from tests.kernel import clock, lab
from tests.kernel.lab import Pod, limits
from tests.kernel.node import Node

PACKET = 1514


def without_ipv6(pod: Pod) -> None:
    """The kernel's own router solicitations and reports are packets as well, where each counts."""
    pod.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")


def sampled(shaper: Shaper, pod: Pod) -> Sample:
    found = shaper.sample(pod.uid, pod.netns, ["eth0"])
    assert found
    return found


@pytest.mark.parametrize("arguments", [(), ("-P", "8"), ("-u", "-b", "50M"), ("-u", "-b", "5M", "-l", "64"), ("-R",)])
def test_ordinary_traffic_is_none_also_while_it_queues(
    shaper: Shaper, limited: Pod, peer: Pod, arguments: tuple[str, ...]
) -> None:
    """TCP in GSO packets, UDP above the limit, small packets, and acknowledgements alone."""
    shaper.shape(limited.uid, limited.netns, limits(egress="20M", ingress="20M"))
    before = sampled(shaper, limited)
    with lab.serving(peer), lab.background(limited, peer, *arguments, seconds=4) as result:
        for _ in range(25):
            lab.sleep(0.2)
            after = sampled(shaper, limited)
            assert unshaped(before, after) == Traffic()
            before = after
        result()
    assert unshaped(before, sampled(shaper, limited)) == Traffic()


def test_nor_are_trains_of_udp_which_are_one_packet_to_the_queue_and_many_to_the_link(
    shaper: Shaper, limited: Pod, peer: Pod
) -> None:
    """So are an open connection's packets of up to 64 KiB once its limit was lowered."""
    shaper.shape(limited.uid, limited.netns, limits(egress="20M"))
    before = sampled(shaper, limited)
    with (
        lab.Module(peer, "tests.kernel.udp", "count", "7"),
        lab.Module(limited, "tests.kernel.udp", "segments", peer.address, "20", "5") as sending,
    ):
        sending.go()
        for _ in range(50):
            lab.sleep(0.1)
            after = sampled(shaper, limited)
            assert unshaped(before, after) == Traffic()
            before = after


def test_packets_past_the_filters_are_counted_exactly_on_an_idle_link(shaper: Shaper, limited: Pod) -> None:
    without_ipv6(limited)
    shaper.shape(limited.uid, limited.netns, limits(egress="1M"))
    before = sampled(shaper, limited)
    with lab.Module(limited, "tests.kernel.bypass", "1000", "0") as sender:
        sender.lines()
    passed = unshaped(before, sampled(shaper, limited))
    print(f"BYPASS {passed}")
    assert passed == Traffic(1000 * PACKET, 1000)


def test_packets_past_the_filters_are_found_beside_bulk_tcp(shaper: Shaper, limited: Pod, peer: Pod) -> None:
    shaper.shape(limited.uid, limited.netns, limits(egress="20M"))
    with lab.serving(peer), lab.background(limited, peer, seconds=5) as result:
        lab.sleep(1)
        before = sampled(shaper, limited)
        with lab.Module(limited, "tests.kernel.bypass", "1000", "0.001") as sender:
            sender.lines()
        passed = unshaped(before, sampled(shaper, limited))
        result()
    print(f"BYPASS beside TCP {passed}")
    assert 600 <= passed.packets <= 1000
    assert 600 * PACKET <= passed.bytes <= 1000 * PACKET


def test_the_owner_is_told_and_not_for_what_passed_before_the_limit_or_while_it_was_away(
    shaper: Shaper, limited: Pod, peer: Pod
) -> None:
    without_ipv6(limited)
    lab.transfer(limited, peer, seconds=1)
    with Node(shaper) as node:
        node.start(limited, egress="20M")
        lab.sleep(3)
        limited.run("tc", "qdisc", "del", "dev", "eth0", "clsact")
        lab.transfer(limited, peer, seconds=1)
        lab.sleep(3)
        assert [told.notice.reason for told in node.told] == ["BandwidthLimited", "BandwidthRepaired"]
        with lab.Module(limited, "tests.kernel.bypass", "100", "0") as sender:
            sender.lines()
        told = node.wait(limited, "UnshapedTraffic", since=0)
        # A look in the middle of it finds some, the next one the others.
        found = re.search(r"at least (\d+) packets \((\d+) bytes\)", told.notice.message)
        assert found
        packets, size = map(int, found.groups())
        assert 1 <= packets <= 100
        assert size == packets * PACKET
        all_of_it = [Traffic(100 * PACKET, 100)]
        clock.until(lambda: [traffic for _, traffic in node.resync.unshaped()] == all_of_it, seconds=15)
        lab.sleep(3)  # it stays that
        assert [traffic for _, traffic in node.resync.unshaped()] == all_of_it


def test_other_gso_sizes_that_netlink_does_not_tell_of_are_put_back_by_the_resync(shaper: Shaper, limited: Pod) -> None:
    with Node(shaper) as node:
        node.start(limited, egress="20M")
        lab.sleep(1)
        limited.run("ip", "link", "set", "eth0", "gso_max_size", "65536")
        # Every fourth round is full, so it comes after up to 6 s, and what the resyncs take.
        assert "GSO" in node.wait(limited, "BandwidthRepaired", since=0, seconds=30).notice.message
        assert "gso_max_size 5000 " in limited.run("ip", "-d", "link", "show", "eth0")
