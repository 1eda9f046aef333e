"""Whatever links a Pod makes, and however it names them, it is limited, or told that it is not."""

import os
import sys
import time

from reconciler.kernel.observe import MOST_LINKS
from reconciler.netns_scan import scan_netns
from reconciler.sandboxes import Key
from reconciler.shaping import Shaper
from tests.kernel import clock, lab
from tests.kernel.held import ANNOTATED, BOTH, FLUSHED, SECOND
from tests.kernel.lab import Pod
from tests.kernel.node import Node


def test_a_pod_with_a_great_many_links_keeps_its_limits_and_gets_them_back(node: Node, limited: Pod) -> None:
    node.start(limited, **ANNOTATED)
    links = "".join(f"link add v{number} type veth peer name w{number}\\n" for number in range(MOST_LINKS))
    limited.run("sh", "-ec", f"printf '{links}' | ip -batch -")
    lab.sleep(SECOND)
    began = time.monotonic()
    limited.run("sh", "-ec", FLUSHED)
    told = node.wait(limited, "BandwidthRepaired", since=began)
    print(f"REPAIRED among {2 * MOST_LINKS} links after {told.at - began:.2f} s")

    def complete() -> bool:
        links = limited.run("ip", "link", "show", "up"), limited.run("tc", "qdisc")
        held = [limited.run("tc", "filter", "show", "dev", dev, "egress", check=False) for dev in ("eth0", "vethbw0")]
        return "vethbw0" in links[0] and "fq 1bd0: dev eth0" in links[1] and all("ipvlan-bandwidth:" in x for x in held)

    def repairs() -> int:
        return [told.notice.reason for told in node.told].count("BandwidthRepaired")

    clock.until(complete, seconds=10)  # at the first repair, more of the three commands may be yet to come
    assert limited.tc().count("ipvlan-bandwidth:") == 2
    lab.sleep(SECOND)  # the last repair is told of once it is done
    before = repairs()
    limited.run("ip", "link", "del", "v1")
    lab.sleep(SECOND)
    assert repairs() == before


def test_more_ipvlan_links_than_are_looked_at_are_told_of(node: Node, limited: Pod) -> None:
    node.start(limited, **ANNOTATED)
    links = "".join(f"link add link eth0 name more{number} type ipvlan mode l2\\n" for number in range(MOST_LINKS))
    began = time.monotonic()
    limited.run("sh", "-ec", f"printf '{links}' | ip -batch -")
    assert "1 of them" in node.wait(limited, "TooManyInterfaces", since=began).notice.message
    assert limited.run("tc", "filter", "show", "dev", f"more{MOST_LINKS - 2}", "egress")
    assert not limited.run("tc", "filter", "show", "dev", f"more{MOST_LINKS - 1}", "egress")
    assert "fq 1bd0: dev eth0" in limited.tc()


def test_a_veth0_that_is_renamed_keeps_its_limits_and_one_that_loses_all_of_ours_then_is_told_of(
    node: Node, limited: Pod
) -> None:
    limited.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "host0")
    node.start(limited, **ANNOTATED)
    began = time.monotonic()
    limited.run("ip", "link", "set", "veth0", "name", "v0")
    lab.sleep(SECOND)
    assert "fq 1bd0: dev v0" in limited.tc()
    assert "ipvlan-bandwidth:" in limited.run("tc", "filter", "show", "dev", "v0", "egress")
    limited.run("tc", "qdisc", "del", "dev", "v0", "clsact")
    node.wait(limited, "BandwidthRepaired", since=began)
    assert "ipvlan-bandwidth:" in limited.run("tc", "filter", "show", "dev", "v0", "egress")
    lab.sleep(SECOND)  # both go before the next look, as each alone is put back
    limited.run("sh", "-ec", r"printf 'qdisc del dev v0 root\nqdisc del dev v0 clsact\n' | tc -batch -")
    assert node.wait(limited, "RenamedInterface", since=began).notice.message.startswith("v0 shared the limit")


def test_a_pod_that_gives_its_interfaces_names_of_any_bytes_is_limited_all_the_same(
    shaper: Shaper, limited: Pod
) -> None:
    limited.run("ip", "link", "set", "eth0", "down")
    script = "import subprocess; subprocess.run([b'ip', b'link', b'set', b'eth0', b'name', b'e\\xff\\xfe'], check=True)"
    limited.run(sys.executable, "-c", script)
    limited.run("ip", "link", "set", b"e\xff\xfe".decode(errors="surrogateescape"), "up")
    outcome = shaper.shape(limited.uid, limited.netns, BOTH)
    assert outcome.interfaces == ("e\\xff\\xfe",)
    assert shaper.shape(limited.uid, limited.netns, BOTH).steps == ()
    assert scan_netns([Key(limited.uid, limited.netns)]).held == {(limited.uid, limited.netns): BOTH}
    shaper.release(limited.uid, limited.netns)


def test_links_whose_names_look_the_same_are_each_limited(shaper: Shaper, limited: Pod) -> None:
    names = (b"e\xff", b"e\\xff", b"e\\\\xff")
    for name in names:
        limited.run("ip", "link", "add", "link", "eth0", "name", os.fsdecode(name), "type", "ipvlan", "mode", "l2")
    outcome = shaper.shape(limited.uid, limited.netns, BOTH)
    assert set(outcome.interfaces) == {"eth0", r"e\xff", r"e\\xff", r"e\\\\xff"}
    assert limited.tc().count("ipvlan-bandwidth:") == 2 + len(names)  # on each of them, and on the ifb
    assert shaper.shape(limited.uid, limited.netns, BOTH).steps == ()
    shaper.release(limited.uid, limited.netns)
    assert "ipvlan-bandwidth:" not in limited.tc()


def test_in_mode_l3s_what_is_told_as_in_force_is_egress_alone(node: Node, wire: None) -> None:  # noqa: ARG001
    with lab.pod("layer3s", "eA", "172.51.0.110", mode="l3s") as pod:
        node.start(pod, **ANNOTATED)
        assert "limited to egress 100M bit/s on eth0" in node.wait(pod, "BandwidthLimited", since=0).notice.message
        assert "so ingress is not limited" in node.wait(pod, "L3sIngress", since=0).notice.message
        assert node.controller.pod_counts() == (1, 0, 1, 0, 0)
        node.annotate(pod, ingress="100M")
        node.wait(pod, "BandwidthChanged", since=0)
        assert node.controller.pod_counts() == (1, 0, 0, 1, 0)


def test_a_pod_that_switches_its_nic_to_l3s_takes_ingress_limits_from_others_which_are_told(
    node: Node,
    wire: None,  # noqa: ARG001
) -> None:
    """From l3 to l3s the kernel tells of it in the netns of the one that did it, and in no other."""
    with (
        lab.pod("switching", "eA", "172.51.0.111", mode="l3") as switching,
        lab.pod("neighbour", "eA", "172.51.0.112", mode="l3") as neighbour,
    ):
        for pod in (switching, neighbour):
            node.start(pod, ingress="20M")
        node.rest()
        lab.sleep(2)  # what was told of their links so far has been looked at
        began = time.monotonic()
        switching.run("ip", "link", "set", "eth0", "type", "ipvlan", "mode", "l3s")
        for pod in (switching, neighbour):
            node.wait(pod, "L3sIngress", since=began, seconds=30)
            node.stop(pod)
