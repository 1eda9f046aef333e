"""`python -m reconciler clean` takes away all that the project ever put on a node, and only that."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from reconciler.kernel import netns
from reconciler.kernel.apply import AttachedProgram, apply
from reconciler.kernel.netlink import Netlink
from reconciler.model import HANDLE_CLSACT_OURS
from reconciler.shaping import Shaper
from reconciler.steps import AttachShaper, CreateIfb
from tests.kernel import clock, lab
from tests.kernel.counted import by_limit
from tests.kernel.lab import Pod, limits
from webhook.common.contract import Direction

BOTH = limits(ingress="20M", egress="20M")
FOREIGN = """
ip link add ifb9 type ifb; ip link set ifb9 up; tc qdisc add dev ifb9 root handle 1: tbf rate 1gbit burst 1m latency 5ms
ip link add dummy0 type dummy
tc qdisc add dev dummy0 root handle 5: fq flow_limit 200
tc qdisc add dev dummy0 clsact
tc filter add dev dummy0 ingress pref 65520 matchall action mirred egress redirect dev ifb9
tc filter add dev dummy0 egress pref 1 handle 1 bpf bytecode '1,6 0 0 0'
"""
ON_ETH0 = (
    "tc filter add dev eth0 egress pref 7 matchall action ok; tc filter add dev eth0 ingress pref 8 matchall action ok"
)


def clean() -> str:
    done = subprocess.run([sys.executable, "-m", "reconciler", "clean"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def neighbour(wire: None) -> Iterator[Pod]:  # noqa: ARG001 - the order of set-up
    with lab.pod("neighbour", "eA", "172.51.0.105") as made:
        made.run("sh", "-ec", FOREIGN)
        yield made


def test_everything_of_ours_goes_from_every_pod_and_nothing_else(
    shaper: Shaper, limited: Pod, peer: Pod, neighbour: Pod
) -> None:
    for pod in (limited, peer):
        pod.run("sh", "-ec", FOREIGN)
    limited.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
    limited.run("sh", "-ec", ON_ETH0)
    before = [(pod.tc(), pod.run("ip", "-d", "link")) for pod in (limited, peer, neighbour)]
    for pod in (limited, peer):
        shaper.shape(pod.uid, pod.netns, BOTH)
    said = clean()
    assert [(pod.tc(), pod.run("ip", "-d", "link")) for pod in (limited, peer, neighbour)] == before
    assert f"{limited.netns}: delete the ifb vethbw0\n" in said
    assert neighbour.netns not in said
    assert clean() == ""


def test_an_open_connection_is_free_from_then_on(shaper: Shaper, limited: Pod, peer: Pod) -> None:
    def passed() -> int:
        return by_limit(shaper, limited, Direction.INGRESS).bytes

    def received() -> int:
        return int(limited.run("cat", "/sys/class/net/eth0/statistics/rx_bytes"))

    shaper.shape(limited.uid, limited.netns, BOTH)
    with lab.serving(limited), lab.bulk(peer, limited, 5201, seconds=120):
        lab.flowing(limited)
        before = clock.rate(passed, 2)
        clean()
        after = clock.rate(received, 1)
    print(f"CLEAN {before:.1f} Mbit/s before it, {after:.0f} after it")
    assert 15 < before < 20.9  # what comes to wait in the queue is counted already
    assert after > 100


def test_what_other_versions_left_goes_too(shaper: Shaper, limited: Pod, peer: Pod) -> None:
    """A program with another name, an ifb that somebody renamed, the rest of a plan that was never finished."""
    before = [(pod.tc(), pod.run("ip", "-d", "link")) for pod in (limited, peer)]
    shaper.shape(limited.uid, limited.netns, BOTH)
    limited.run("sh", "-ec", "ip link set vethbw0 down; ip link set vethbw0 name mine; tc filter del dev eth0 egress")
    other = Shaper.start(slots=9)
    with netns.opened(peer.netns) as descriptor, Netlink.inside(descriptor) as netlink:
        older = AttachedProgram(other._program.descriptor, "ipvlan-bandwidth:0000000000")
        peer.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
        for step in (CreateIfb(), AttachShaper("eth0", HANDLE_CLSACT_OURS, 18)):
            apply(step, netlink, older)
    other.close()
    assert "ipvlan-bandwidth:0000000000" in peer.tc()
    clean()
    assert [(pod.tc(), pod.run("ip", "-d", "link")) for pod in (limited, peer)] == before
