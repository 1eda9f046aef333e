"""What a Pod's author can do at worst with capabilities in the Pod's own network namespace: docs/security.md has it."""

import json
import sys

import pytest

from reconciler.shaping import Shaper
from tests.kernel import lab
from tests.kernel.counted import by_interface, by_limit
from tests.kernel.lab import Pod, limits
from webhook.common.contract import Direction

FRAMES = 1000


def send(pod: Pod, to: Pod, how: str, *, frames: int = FRAMES) -> None:
    (link,) = json.loads(to.run("ip", "-json", "link", "show", "eth0"))
    pod.run(sys.executable, "-m", "tests.kernel.frames", to.address, link["address"], str(frames), how)


@pytest.mark.parametrize("how", ["plain", "control", "unnamed"])
def test_a_packet_socket_is_limited_like_any_other(shaper: Shaper, limited: Pod, peer: Pod, how: str) -> None:
    """Nor does the priority help that fq never holds back: the shaper drops what the limit has no room for."""
    shaper.shape(limited.uid, limited.netns, limits(egress="1M"))
    before = by_interface(peer, "eth0", "rx_packets")
    send(limited, peer, how)
    lab.sleep(1)
    # At 1M a full packet takes 12 ms, so 1000 of them 12 s.
    assert by_interface(peer, "eth0", "rx_packets") - before < FRAMES / 2


def test_packets_that_claim_many_segments_are_charged_all_of_them(shaper: Shaper, limited: Pod, peer: Pod) -> None:
    """Each would be sent as 16,250 packets of 58 bytes, so one has 7.5 s of the limit."""
    shaper.shape(limited.uid, limited.netns, limits(egress="1M"))
    arrived, before = by_interface(peer, "eth0", "rx_bytes"), by_limit(shaper, limited, Direction.EGRESS)
    send(limited, peer, "forged")
    lab.sleep(1)
    after = by_limit(shaper, limited, Direction.EGRESS)
    passed, dropped = after.bytes - before.bytes, after.drops - before.drops
    print(f"FORGED {passed} bytes passed, {dropped} dropped")
    assert 14 * 65_000 < passed < 5 * 14 * 65_000
    assert dropped >= FRAMES - 5
    assert by_interface(peer, "eth0", "rx_bytes") - arrived < 1_000_000


def test_nor_do_they_fill_the_queue_of_a_neighbour_whose_ingress_is_limited(shaper: Shaper, peer: Pod) -> None:
    """Behind the shaper each would be cut into 16,250, which wait there: a million after some seconds."""
    shaper.shape(peer.uid, peer.netns, limits(ingress="50M"))
    before = by_limit(shaper, peer, Direction.INGRESS)
    with lab.pod("neighbour", "eB", "172.51.0.103") as neighbour:
        neighbour.run("ping", "-c1", peer.address)
        send(neighbour, peer, "neighbour", frames=250)
        qdiscs = json.loads(peer.run("tc", "-json", "-s", "qdisc", "show", "dev", "vethbw0"))
        neighbour.run("ping", "-c1", "-W1", peer.address)
    dropped = by_limit(shaper, peer, Direction.INGRESS).drops - before.drops
    print(f"NEIGHBOUR {dropped} dropped, {qdiscs[0]['qlen']} packets wait")
    assert dropped >= 250
    assert qdiscs[0]["qlen"] < 250
    shaper.shape(peer.uid, peer.netns, limits())


def test_with_net_raw_it_can_pass_by_the_egress_limit_of_its_own_pod(shaper: Shaper, limited: Pod, peer: Pod) -> None:
    """A known gap, as past traffic control the kernel asks no qdisc and no filter; the remedy is to drop NET_RAW."""
    shaper.shape(limited.uid, limited.netns, limits(egress="1M"))
    arrived, charged_before = (
        by_interface(peer, "eth0", "rx_packets"),
        by_limit(shaper, limited, Direction.EGRESS).packets,
    )
    send(limited, peer, "bypass")
    assert by_interface(peer, "eth0", "rx_packets") - arrived >= FRAMES
    assert by_limit(shaper, limited, Direction.EGRESS).packets - charged_before < FRAMES


def test_but_not_by_the_ingress_limit_of_another_pod(shaper: Shaper, limited: Pod, peer: Pod) -> None:
    shaper.shape(limited.uid, limited.netns, limits(egress="1M"))
    shaper.shape(peer.uid, peer.netns, limits(ingress="1M"))
    arrived = by_interface(peer, "eth0", "rx_packets")
    send(limited, peer, "bypass")
    lab.sleep(1)
    assert by_interface(peer, "eth0", "rx_packets") - arrived >= FRAMES
    assert by_interface(peer, "vethbw0", "tx_packets") < FRAMES / 2
    shaper.shape(peer.uid, peer.netns, limits())


@pytest.mark.parametrize("kind", ["ipvlan", "ipvtap"])
def test_with_net_admin_it_can_make_itself_another_ipvlan_which_shares_the_limit(
    shaper: Shaper, limited: Pod, kind: str
) -> None:
    shaper.shape(limited.uid, limited.netns, limits(egress="1M"))
    limited.run("ip", "link", "add", "link", "eth0", "name", "mine", "type", kind, "mode", "l2")
    outcome = shaper.shape(limited.uid, limited.netns, limits(egress="1M"))
    assert set(outcome.interfaces) == {"eth0", "mine"}
    assert "direct-action" in limited.run("tc", "filter", "show", "dev", "mine", "egress")
