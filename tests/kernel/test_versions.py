"""What kernels do differently, and what that means to a Pod."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from reconciler.kernel import netns
from reconciler.kernel.netlink import RTM_GETLINK, Netlink
from reconciler.kernel.observe import link_index
from reconciler.model import GSO_DEFAULT_BYTES, gso_max_bytes
from reconciler.shaping import Shaper
from tests.kernel import lab
from tests.kernel.held import RELEASE
from tests.kernel.lab import Pod, limits

IFLA_GSO_MAX_SIZE = 41
IFLA_GSO_IPV4_MAX_SIZE = 63
SECOND = 10**9


def test_receive_times_are_those_of_the_wall_clock_where_the_kernel_can_tell_clocks_apart(
    shaper: Shaper, limited: Pod, peer: Pod
) -> None:
    shaper.shape(limited.uid, limited.netns, limits(ingress="10M"))
    with (  # the one whose time runs from its start begins last
        lab.Module(peer, "tests.kernel.udp", "flood", limited.address, "0", "1") as flood,
        lab.Module(limited, "tests.kernel.udp", "times", "5") as receiving,
    ):
        flood.go()
        flood.lines()
        packets = [tuple(int(text) for text in line.split()) for line in receiving.lines()]
    assert len(packets) > 100
    right = [abs(wall - stamp) < SECOND for stamp, wall, _ in packets]
    monotonic = [abs(now - stamp) < SECOND for stamp, _, now in packets]
    print(f"RECEIVE TIMES {len(packets)} packets: {sum(right)} wall clock, {sum(monotonic)} monotonic")
    assert all(one != other for one, other in zip(right, monotonic, strict=True))
    if RELEASE >= (5, 18):
        assert all(right)
    else:  # those that waited carry the stamp by which they left the queue
        assert sum(monotonic) > len(packets) / 2


def test_what_another_pod_of_the_node_stamped_for_later_comes_in_at_once(shaper: Shaper, limited: Pod) -> None:
    """Stamps of UDP survive the way from Pod to Pod from Linux 6.11 on, those of TCP from 5.18 on."""
    shaper.shape(limited.uid, limited.netns, limits(ingress="10M"))
    with (
        lab.pod("neighbour", "eA", "172.51.0.101") as neighbour,
        lab.Module(neighbour, "tests.kernel.udp", "later", limited.address, "20", "600") as sending,
        lab.Module(limited, "tests.kernel.udp", "times", "5") as receiving,
    ):
        sending.go()
        sending.lines()
        assert len(receiving.lines()) == 20


@pytest.mark.parametrize("rate", ["1M", "20M"])
def test_connections_opened_under_a_limit_send_no_large_packets_and_those_after_it_do(
    shaper: Shaper, limited: Pod, peer: Pod, rate: str
) -> None:
    bounds = {IFLA_GSO_MAX_SIZE, IFLA_GSO_IPV4_MAX_SIZE} if RELEASE >= (6, 3) else {IFLA_GSO_MAX_SIZE}
    wanted = limits(egress=rate)
    assert wanted.egress is not None
    largest = gso_max_bytes(wanted.egress.bits_per_second)
    before = sizes(limited)
    assert before == dict.fromkeys(bounds, GSO_DEFAULT_BYTES)
    shaper.shape(limited.uid, limited.netns, wanted)
    assert sizes(limited) == dict.fromkeys(bounds, largest)
    bound = max(packet.length for packet in lab.sniffed(limited, peer, seconds=3))
    shaper.shape(limited.uid, limited.netns, limits())
    assert sizes(limited) == before
    free = max(packet.length for packet in lab.sniffed(limited, peer, seconds=2))
    print(f"LARGEST PACKET at {rate}: {bound} bytes of {largest}; without a limit {free}")
    assert bound <= largest < free


@pytest.mark.skipif("EMULATED" not in os.environ, reason="user-mode-linux has no BPF JIT")
def test_the_shaper_is_compiled_to_machine_code() -> None:
    assert Path("/proc/sys/net/core/bpf_jit_enable").read_text().strip() != "0"


def sizes(pod: Pod) -> dict[int, int]:
    attributes = link_attributes(pod, "eth0")
    wanted = (IFLA_GSO_MAX_SIZE, IFLA_GSO_IPV4_MAX_SIZE)
    return {kind: int.from_bytes(attributes[kind], "little") for kind in wanted if kind in attributes}


@pytest.mark.parametrize("resource", ["", ",+sys_resource"])
def test_the_capabilities_of_the_manifest_suffice_to_load_but_before_5_11(resource: str) -> None:
    """Under 8 MiB of lockable memory, as systemd gives by default, and with the manifest's number of slots."""
    bounding = f"--bounding-set=-all,+sys_admin,+net_admin,+net_broadcast{resource}"
    load = "from reconciler.shaping import Shaper; Shaper.start(slots=256); print('loaded')"
    command = ("prlimit", "--memlock=8388608", "setpriv", bounding, sys.executable, "-c", load)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    print(f"LOADING with{resource or ' the manifest'}: {done.stdout.strip() or done.stderr.strip().splitlines()[-1]}")
    if RELEASE >= (5, 11) or resource:
        assert done.stdout == "loaded\n", done.stderr
    else:
        assert "CAP_SYS_RESOURCE" in done.stderr


def link_attributes(pod: Pod, name: str) -> dict[int, bytes]:
    """A link's attributes as the kernel tells them, also those that no tool here knows."""
    with netns.opened(pod.netns) as descriptor, Netlink.inside(descriptor) as netlink:
        request = ifinfmsg()
        request["index"] = link_index(netlink, name)
        data = netlink.ask(request, RTM_GETLINK) or b""
    found = {}
    offset = 32  # the headers of netlink and of the link
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        found[kind & 0x3FFF] = bytes(data[offset + 4 : offset + length])
        offset += (max(length, 4) + 3) & ~3
    return found
