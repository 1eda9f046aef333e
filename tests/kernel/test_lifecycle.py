"""What happens to a Pod's shaping: changes, later links, restarts, new sandboxes, foreign neighbours."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from reconciler.inspection import clean, inspect
from reconciler.kernel import netns
from reconciler.kernel.errors import HostNetnsError, NetnsGoneError, NoSlotLeftError
from reconciler.model import ProblemKind
from reconciler.sandboxes import Key
from reconciler.shaping import Shaper
from tests.kernel import clock, lab
from tests.kernel.counted import by_ip, by_limit
from tests.kernel.lab import Pod, limits, transfer
from webhook.common.contract import Direction

BOTH = limits(ingress="100M", egress="100M")


def test_shaping_again_changes_nothing(shaper: Shaper, limited: Pod) -> None:
    assert shaper.shape(limited.uid, limited.netns, BOTH).steps
    assert shaper.shape(limited.uid, limited.netns, BOTH).steps == ()


def test_another_rate_changes_what_is_there_and_binds_an_open_connection(
    shaper: Shaper, limited: Pod, peer: Pod
) -> None:
    shaper.shape(limited.uid, limited.netns, limits(ingress="50M"))
    with lab.serving(limited), lab.background(peer, limited, seconds=7) as result:
        lab.flowing(limited)
        lab.sleep(3)
        outcome = shaper.shape(limited.uid, limited.netns, limits(ingress="20M"))
        measured = result()
    assert [type(step).__name__ for step in outcome.steps] == ["WriteLimit", "SetRoot"]
    assert 1 not in measured.above(50) and 5 not in measured.above(20), measured
    assert measured.lowest(slice(1, 3)) >= 35 and measured.lowest(slice(5, 7)) >= 15, measured


def test_without_limits_nothing_of_ours_is_left(shaper: Shaper, limited: Pod) -> None:
    before = limited.tc()
    shaper.shape(limited.uid, limited.netns, BOTH)
    assert limited.tc() != before
    shaper.shape(limited.uid, limited.netns, limits())
    assert limited.tc() == before
    assert "vethbw0" not in limited.run("ip", "link")
    assert shaper.shape(limited.uid, limited.netns, limits()).steps == ()


def test_one_side_can_go_while_the_other_stays(shaper: Shaper, limited: Pod, peer: Pod) -> None:
    shaper.shape(limited.uid, limited.netns, BOTH)
    shaper.shape(limited.uid, limited.netns, limits(ingress="100M"))
    assert transfer(limited, peer, seconds=2).goodput > 120
    assert 50 <= transfer(peer, limited, seconds=2).goodput <= 97


def test_what_somebody_removed_comes_back(shaper: Shaper, limited: Pod) -> None:
    shaper.shape(limited.uid, limited.netns, BOTH)
    before = limited.tc()
    limited.run("ip", "link", "del", "vethbw0")
    limited.run("tc", "qdisc", "del", "dev", "eth0", "clsact")
    limited.run("tc", "qdisc", "del", "dev", "eth0", "root")
    assert shaper.shape(limited.uid, limited.netns, BOTH).steps
    assert limited.tc().count("ipvlan-bandwidth:") == before.count("ipvlan-bandwidth:") == 2
    assert shaper.shape(limited.uid, limited.netns, BOTH).steps == ()


def test_two_slaves_and_veth0_that_come_later_share_the_limit(shaper: Shaper, limited: Pod, peer: Pod) -> None:
    shaper.shape(limited.uid, limited.netns, limits(egress="50M"))
    lab.add_slave(limited, "eA", "172.52.0.100", name="eth1")
    limited.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "host0")
    outcome = shaper.shape(limited.uid, limited.netns, limits(egress="50M"))
    assert set(outcome.interfaces) == {"eth0", "eth1", "veth0"}
    assert "fq 1bd0: dev veth0" in limited.tc()
    lab.add_address(peer, "172.52.0.102/16", "eth0")
    with (
        lab.serving(peer, 5301),
        lab.serving(peer, 5302),
        lab.Module(peer, "tests.kernel.udp", "count", "10") as counting,
        lab.background(limited, peer, seconds=10, port=5301) as first,
    ):
        second = lab.client_only(limited, peer, seconds=10, port=5302, address="172.52.0.102")
        assert min(first().goodput, second.goodput) > 5
        total = lab.carried(counting.lines(), after=4, until=8)  # while both send
    assert 35 <= total <= 50


@contextmanager
def behind_veth0(pod: Pod) -> Iterator[Pod]:
    """The other end of a Pod's veth0, which Spiderpool's coordinator has on the node, in a netns of its own."""
    host = Pod("host", "", "172.53.0.1")
    lab.run("ip", "netns", "add", host.name)
    try:
        ends = ("veth0", "netns", pod.name, "type", "veth", "peer", "name", "host0", "netns", host.name)
        lab.run("ip", "link", "add", *ends)
        for end, name, address in ((pod, "veth0", "172.53.0.2"), (host, "host0", host.address)):
            lab.add_address(end, f"{address}/24", name)
            end.run("ip", "link", "set", name, "up")
        yield host
    finally:
        lab.run("ip", "netns", "del", host.name, check=False)


def octets(*pods: Pod) -> int:
    """The bytes that IP has received, behind any limit."""
    return sum(by_ip(pod, "netstat", "IpExt", "InOctets") for pod in pods)


@pytest.mark.parametrize("direction", Direction)
def test_what_goes_by_veth0_and_what_goes_by_eth0_share_the_limit(
    shaper: Shaper, limited: Pod, peer: Pod, direction: Direction
) -> None:
    with behind_veth0(limited) as host:
        shaper.shape(limited.uid, limited.netns, limits(**{direction: "50M"}))
        if direction is Direction.EGRESS:
            by_eth0, by_veth0, receivers, address = (limited, peer), (limited, host), (peer, host), host.address
        else:
            by_eth0, by_veth0, receivers, address = (peer, limited), (host, limited), (limited,), "172.53.0.2"
        with (
            lab.serving(by_eth0[1], 5301),
            lab.serving(by_veth0[1], 5302),
            lab.background(*by_eth0, seconds=10, port=5301) as first,
            lab.background(*by_veth0, seconds=10, port=5302, address=address) as second,
        ):
            lab.sleep(3)
            total = clock.rate(lambda: octets(*receivers), 4)  # while both send
            both = first(), second()
    print(f"BY VETH0 {direction}: {total:.1f} Mbit/s together, {[each.goodput for each in both]}")
    assert min(each.goodput for each in both) > 5
    assert 35 <= total <= 50.5


def test_a_fresh_process_adopts_what_runs(shaper: Shaper, limited: Pod, peer: Pod) -> None:
    shaper.shape(limited.uid, limited.netns, BOTH)
    transfer(limited, peer, seconds=1)
    fresh = Shaper.start(slots=8, netns_paths=[Key(limited.uid, limited.netns)], record=lab.RECORD)
    assert fresh.adopted
    assert fresh.shape(limited.uid, limited.netns, BOTH).steps == ()
    before, seen, after = (by_limit(each, limited, Direction.EGRESS).bytes for each in (shaper, fresh, shaper))
    assert 1_000_000 < before <= seen <= after
    fresh.close()


def test_who_is_shaped_in_a_netns_that_nobody_names_is_found_in_its_folder(shaper: Shaper, limited: Pod) -> None:
    shaper.shape(limited.uid, limited.netns, BOTH)
    named = Shaper.start(slots=8, folder=netns.NETNS_FOLDER, record=lab.RECORD)
    assert named.adopted
    assert named.found == {(limited.uid, limited.netns): BOTH}
    assert {(each.pod_uid, each.netns_path) for each in named.counters() if each.limits} == {
        (limited.uid, limited.netns)
    }
    named.close()
    other = Shaper.start(slots=9, folder=netns.NETNS_FOLDER, record=lab.RECORD)
    assert not other.adopted
    assert other.found == {(limited.uid, limited.netns): BOTH}
    other.close()


def test_a_program_of_another_version_is_replaced(shaper: Shaper, limited: Pod, peer: Pod) -> None:
    shaper.shape(limited.uid, limited.netns, BOTH)
    other = Shaper.start(slots=9, netns_paths=[Key(limited.uid, limited.netns)], record=lab.RECORD)
    assert not other.adopted
    outcome = other.shape(limited.uid, limited.netns, BOTH)
    assert [type(step).__name__ for step in outcome.steps] == ["WriteLimit"] * 2 + ["AttachShaper"] * 2
    assert 50 <= transfer(limited, peer, seconds=2).goodput <= 97
    other.close()


@pytest.mark.usefixtures("wire")
def test_a_sandbox_made_anew_is_limited_again_and_the_old_slot_is_freed(shaper: Shaper) -> None:
    shaper.collect({})
    with lab.pod("first", "eA", "172.51.0.110", uid="same") as first:
        shaper.shape("same", first.netns, BOTH)
    taken = len(shaper.counters())
    with lab.pod("second", "eA", "172.51.0.110", uid="same") as second:
        assert shaper.shape("same", second.netns, BOTH).steps
        shaper.release("same", first.netns)
        assert len(shaper.counters()) == taken
        assert shaper.shape("same", second.netns, BOTH).steps == ()
        shaper.release("same", second.netns)
    assert len(shaper.counters()) == taken - 1


@pytest.mark.usefixtures("wire")
def test_slots_run_out_and_collect_frees_them(shaper: Shaper, limited: Pod) -> None:
    free = 8 - len(shaper.counters())
    try:
        with ExitStack() as stack:
            names = [f"many{number}" for number in range(9)]
            pods = [
                stack.enter_context(lab.pod(name, "eA", f"172.51.1.{number}")) for number, name in enumerate(names, 1)
            ]
            for pod in pods[:free]:
                shaper.shape(pod.uid, pod.netns, BOTH)
            with pytest.raises(NoSlotLeftError):
                shaper.shape(pods[free].uid, pods[free].netns, BOTH)
        assert shaper.collect(shaper.inodes([(limited.uid, limited.netns)])) == free
        assert len(shaper.counters()) == 8 - free
    finally:
        shaper.collect({})


@pytest.mark.usefixtures("wire")
def test_nothing_keeps_a_netns_alive_and_no_descriptor_is_left(shaper: Shaper) -> None:
    def descriptors() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    with lab.pod("gone", "eA", "172.51.0.120") as gone:
        shaper.shape(gone.uid, gone.netns, BOTH)
        before = descriptors()
        for _ in range(20):
            shaper.shape(gone.uid, gone.netns, BOTH)
            inspect(gone.netns)
        assert descriptors() == before
        lab.run("ip", "netns", "del", gone.name)
    with lab.pod("next", "eA", "172.51.0.120"):
        pass  # the kernel refuses an address that an ipvlan slave still has: then this fails, after a while
    with pytest.raises(NetnsGoneError):
        shaper.shape(gone.uid, gone.netns, BOTH)
    shaper.release(gone.uid, gone.netns)


def test_the_nodes_own_netns_is_never_touched(shaper: Shaper) -> None:
    with pytest.raises(HostNetnsError):
        shaper.shape("host", "/proc/self/ns/net", BOTH)
    with pytest.raises(NetnsGoneError):
        shaper.shape("host", "/etc/hostname", BOTH)


def test_foreign_qdisc_and_filter_stay_and_are_told(shaper: Shaper, limited: Pod) -> None:
    limited.run(
        "tc",
        "qdisc",
        "add",
        "dev",
        "eth0",
        "root",
        "handle",
        "1:",
        "tbf",
        "rate",
        "1gbit",
        "burst",
        "1m",
        "latency",
        "5ms",
    )
    limited.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
    limited.run("tc", "filter", "add", "dev", "eth0", "egress", "pref", "7", "matchall", "action", "ok")
    before = limited.tc()
    outcome = shaper.shape(limited.uid, limited.netns, BOTH)
    assert [problem.kind for problem in outcome.problems] == [ProblemKind.CONFLICT]
    assert "tbf 1:" in limited.tc()
    shaper.shape(limited.uid, limited.netns, limits())
    assert limited.tc() == before


def test_a_pod_without_ipvlan_is_told_and_takes_no_slot(shaper: Shaper) -> None:
    shaper.collect({})
    taken = len(shaper.counters())
    lab.run("ip", "netns", "add", "plain")
    try:
        outcome = shaper.shape("plain", "/run/netns/plain", BOTH)
    finally:
        lab.run("ip", "netns", "del", "plain")
    assert [problem.kind for problem in outcome.problems] == [ProblemKind.NO_IPVLAN]
    assert len(shaper.counters()) == taken


def test_clean_takes_all_away_without_a_shaper_and_inspect_tells(shaper: Shaper, limited: Pod, peer: Pod) -> None:
    before = limited.tc()
    shaper.shape(limited.uid, limited.netns, BOTH)
    transfer(limited, peer, seconds=1)
    seen = inspect(limited.netns)
    assert seen.counters is not None
    assert seen.counters.pod_uid == limited.uid
    assert seen.counters.directions[Direction.EGRESS].packets > 1000
    assert set(seen.interfaces) == {"eth0", "vethbw0"}
    assert clean(limited.netns)
    assert limited.tc() == before
    assert clean(limited.netns) == ()


def test_since_when_a_netns_is_there_is_known_and_does_not_change(limited: Pod) -> None:
    since_s = netns.created_s(limited.netns)
    assert 0 <= time.time() - since_s < 30
    lab.sleep(1)
    limited.run("ip", "link", "set", "eth0", "mtu", "1400")
    assert netns.created_s(limited.netns) == since_s
