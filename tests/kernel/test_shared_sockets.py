"""What waits for one Pod is charged to its sender's socket: one that others use too must go on serving them."""

import time
from collections.abc import Iterator

import pytest

from reconciler.shaping import Shaper
from tests.kernel import lab
from tests.kernel.counted import by_ip, by_limit
from tests.kernel.lab import Pod, limits
from webhook.common.contract import Direction

ATTEMPTS = 20
CLIENTS = 2000
DEFAULT_BUFFER = 212_992


@pytest.fixture
def neighbour(wire: None) -> Iterator[Pod]:  # noqa: ARG001 - the order of set-up
    with lab.pod("neighbour", "eA", "172.51.0.101") as made:
        yield made


def test_a_pod_that_is_slow_to_receive_does_not_take_a_neighbours_udp_server_from_its_other_clients(
    shaper: Shaper, limited: Pod, neighbour: Pod, peer: Pod
) -> None:
    """Each client is a flow of its own, of one packet: no flow has had so much that it would be dropped."""
    shaper.shape(limited.uid, limited.netns, limits(ingress="500k"))
    with lab.Module(neighbour, "tests.kernel.udp", "serve", limited.address, str(CLIENTS), peer.address) as server:
        server.go()
        refused, most = map(int, server.lines()[0].split())
    print(f"SERVER {refused} of {CLIENTS // 10} answers to another were refused; {most} bytes of its buffer were used")
    assert refused == 0
    assert most < DEFAULT_BUFFER / 2


def test_a_neighbours_connected_udp_socket_waits_for_room_and_loses_nothing(
    shaper: Shaper, limited: Pod, neighbour: Pod
) -> None:
    """It serves nobody else, and its buffer holds it back before any queue is long."""
    shaper.shape(limited.uid, limited.netns, limits(ingress="200M"))
    with (
        lab.Module(limited, "tests.kernel.udp", "take", "4"),
        lab.Module(neighbour, "tests.kernel.udp", "stream", limited.address, "2") as sender,
    ):
        sender.go()
        (sent,) = map(int, sender.lines())
        lost = by_limit(shaper, limited, Direction.INGRESS).drops
    print(f"STREAM {lost} of {sent} were lost")
    assert lost < sent / 100


def ip_discards(pod: Pod) -> int:
    """What IP could not send: for want of room in the socket, or because the shaper dropped it."""
    return by_ip(pod, "snmp", "Ip", "OutDiscards")


def test_a_limited_pod_that_is_scanned_leaves_the_node_its_resets(
    shaper: Shaper, limited: Pod, neighbour: Pod, peer: Pod
) -> None:
    """The kernel sends all of a CPU by one socket (Linux 5.18 on)."""
    shaper.shape(limited.uid, limited.netns, limits(egress="400k"))
    with (
        lab.Module(peer, "tests.kernel.strangers", "resets", limited.address, "2000", "8") as scanner,
        lab.Module(peer, "tests.kernel.strangers", "refused", neighbour.address, "5", "4") as client,
    ):
        scanner.go()
        time.sleep(3)
        client.go()
        (refused,), (sent,) = client.lines(), scanner.lines()
    discarded = ip_discards(limited) - by_limit(shaper, limited, Direction.EGRESS).drops
    print(f"RESETS {refused} of {ATTEMPTS}, beside {sent} that were asked of the limited; {discarded} had no room")
    assert int(refused) == ATTEMPTS
    assert discarded <= 0  # the drops are read later


def test_a_limited_pod_that_is_pinged_leaves_the_node_its_icmp(
    shaper: Shaper, limited: Pod, neighbour: Pod, peer: Pod
) -> None:
    """From several addresses, as a single flood is held to a short queue."""
    sources = [f"172.51.1.{number}" for number in range(1, 21)]
    for source in sources:
        lab.add_address(peer, f"{source}/16", "eth0")
    shaper.shape(limited.uid, limited.netns, limits(egress="1M"))
    with lab.Module(peer, "tests.kernel.strangers", "echoes", limited.address, "4000", "8", *sources) as scanner:
        scanner.go()
        time.sleep(2)
        answered = neighbour_answers(peer, neighbour)
        (sent,) = scanner.lines()
    print(f"ECHOES {answered} of {ATTEMPTS}, beside {sent} that were asked of the limited")
    assert answered == ATTEMPTS


def neighbour_answers(peer: Pod, neighbour: Pod) -> int:
    output = peer.run("ping", "-n", "-W", "1", "-i", "0.1", "-c", str(ATTEMPTS), neighbour.address, check=False)
    return output.count(" time=")
