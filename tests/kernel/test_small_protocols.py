"""What a network needs beside its bulk traffic: neighbours are found, fragments arrive, multicast is counted once."""

import re
import statistics

import pytest

from reconciler.shaping import Shaper
from tests.kernel import lab
from tests.kernel.counted import by_limit
from tests.kernel.lab import Pod, limits
from webhook.common.contract import Direction

SECOND_ADDRESSES = {"IPv4": "172.51.0.103", "IPv6": "fd00::3"}
ROUNDS = 10
LONGEST_MS = 100
DATAGRAMS, DATAGRAM_BYTES = 20, 100


@pytest.mark.parametrize("family", SECOND_ADDRESSES)
def test_a_neighbour_is_found_and_answers_beside_bulk_flows_that_fill_a_low_limit(
    shaper: Shaper, limited: Pod, peer: Pod, family: str
) -> None:
    """At an address that the bulk flows do not keep resolved."""
    address = SECOND_ADDRESSES[family]
    for pod, own in ((limited, "fd00::1"), (peer, "fd00::2"), (peer, "fd00::3")):
        lab.add_address(pod, f"{own}/64", "eth0", "nodad")
    lab.add_address(peer, f"{SECOND_ADDRESSES['IPv4']}/16", "eth0")
    shaper.shape(limited.uid, limited.netns, limits(egress="1M"))
    took = []
    with lab.serving(peer, 5301), lab.bulk(limited, peer, 5301, "-P", "8", seconds=60):
        lab.sleep(2)
        for _ in range(ROUNDS):
            limited.run("ip", "neigh", "flush", "dev", "eth0")
            output = limited.run("ping", "-n", "-c", "1", "-W", "2", address, check=False)
            found = re.search(r"time=([0-9.]+)", output)
            took.append(float(found[1]) if found else 2000.0)
        queue_ms = by_limit(shaper, limited, Direction.EGRESS).queue_ns / 1e6
    print(f"NEIGHBOUR {family}: {statistics.median(took):.1f} ms of {took}, beside a queue of {queue_ms:.0f} ms")
    assert max(took) < 2000, took
    assert statistics.median(took) < LONGEST_MS, took


def test_fragments_arrive_beside_a_bulk_flow(shaper: Shaper, limited: Pod, peer: Pod) -> None:
    shaper.shape(limited.uid, limited.netns, limits(egress="1M"))
    with lab.serving(peer, 5301), lab.bulk(limited, peer, 5301, seconds=60):
        lab.sleep(2)
        output = limited.run("ping", "-n", "-s", "4000", "-i", "0.5", "-c", "10", "-W", "3", peer.address, check=False)
    print(f"FRAGMENTS {output.splitlines()[-1]}")
    assert "10 received" in output, output


def test_a_multicast_datagram_is_counted_once_where_it_leaves_and_once_where_it_comes(
    shaper: Shaper, limited: Pod, peer: Pod
) -> None:
    for pod in (limited, peer):  # the kernel's own reports of IPv6 are multicast too
        pod.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    shaper.shape(limited.uid, limited.netns, limits(ingress="1M", egress="1M"))
    assert cast(shaper, sender=limited, member=peer, limited=limited, direction=Direction.EGRESS) == DATAGRAMS
    assert cast(shaper, sender=peer, member=limited, limited=limited, direction=Direction.INGRESS) == DATAGRAMS


def cast(shaper: Shaper, *, sender: Pod, member: Pod, limited: Pod, direction: Direction) -> int:
    """How many datagrams were counted of those that one Pod sent to the other, which all came."""
    with (  # the one whose time runs from its start begins last
        lab.Module(sender, "tests.kernel.udp", "cast", sender.address, str(DATAGRAMS)) as casting,
        lab.Module(member, "tests.kernel.udp", "join", member.address, "6") as joined,
    ):
        lab.sleep(3)  # the member's own reports have left
        before = by_limit(shaper, limited, direction)
        casting.go()
        came = int(joined.lines()[0])
        after = by_limit(shaper, limited, direction)
    assert came == DATAGRAMS
    assert after.bytes - before.bytes == DATAGRAMS * DATAGRAM_BYTES
    return after.packets - before.packets
