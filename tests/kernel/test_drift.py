"""Whatever somebody changes in a Pod's network, the Pod is limited again within a second, and people are told."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from reconciler.kernel import buckets
from reconciler.kernel.program import Program
from reconciler.model import HANDLE_CLSACT_OURS, IFB_NAME, INGRESS_PRIORITY, LimitEntry, class_id
from reconciler.shaping import Shaper
from tests.kernel import clock, lab
from tests.kernel.counted import by_limit
from tests.kernel.held import ANNOTATED, FLUSHED, SECOND, state
from tests.kernel.lab import Pod
from tests.kernel.node import Node
from webhook.common.contract import Direction

FASTER = buckets.encode_limit(LimitEntry(10**12, 99, "somebody", 1))
NO_RATE = bytes(8) + FASTER[8:]


CHANGES = {
    "the root qdisc deleted": "tc qdisc del dev eth0 root",
    "the ifb's root qdisc deleted": "tc qdisc del dev vethbw0 root",
    "fq with another bound": "tc qdisc change dev eth0 root fq limit 100",
    "fq with another bound of each flow": "tc qdisc change dev vethbw0 root fq flow_limit 10",
    "fq with a horizon": "tc qdisc change dev eth0 root fq horizon 1ms",
    "clsact deleted": "tc qdisc del dev eth0 clsact",
    "the ifb's clsact deleted": "tc qdisc del dev vethbw0 clsact",
    "the shaper detached": "tc filter del dev eth0 egress",
    "the redirection deleted": "tc filter del dev eth0 ingress",
    "the redirection made a copy": "tc actions change action mirred egress mirror dev vethbw0 index INDEX",
    "the ifb deleted": "ip link del vethbw0",
    "the ifb set down": "ip link set vethbw0 down",
    # In one go, as it is set up again within a tenth of a second.
    "the ifb renamed": r"printf 'link set vethbw0 down\nlink set vethbw0 name mine\nlink set mine up' | ip -batch -",
    "all flushed": FLUSHED,
}


SPLITTERS_CHANGES = {
    "what splits deleted": "tc qdisc del dev vethbw0 root",
    "what splits with another bound": "tc qdisc change dev vethbw0 root tbf rate 1gbit burst 64kb limit 1mb",
    "the fq below it deleted": "tc qdisc del dev vethbw0 parent 1bd3:1",
    "the fq below it replaced": "tc qdisc replace dev vethbw0 parent 1bd3:1 handle 7: pfifo limit 10",
    "the fq below it with another rate": "tc qdisc change dev vethbw0 parent 1bd3:1 handle 1bd4: fq maxrate 1gbit",
}


@pytest.mark.parametrize("command", CHANGES.values(), ids=CHANGES)
def test_what_somebody_changed_is_put_back_within_a_second(node: Node, limited: Pod, command: str) -> None:
    put_back(node, limited, command, ANNOTATED)


@pytest.mark.parametrize("command", SPLITTERS_CHANGES.values(), ids=SPLITTERS_CHANGES)
def test_what_somebody_changed_of_what_splits_packets_is_put_back(node: Node, limited: Pod, command: str) -> None:
    put_back(node, limited, command, {"ingress": "20M"})


def put_back(node: Node, limited: Pod, command: str, wanted: dict[str, str]) -> None:
    node.start(limited, **wanted)
    before = state(limited)
    lab.sleep(0.5)
    # What the one CPU was away for is not held against it.
    with clock.Stalls.noted() as stalls:
        began = time.monotonic()
        change(limited, command)
        done = time.monotonic()
        told = node.wait(limited, "BandwidthRepaired", since=began)
        # At the first repair, more of what one change did may be yet to come.
        as_before = clock.until(lambda: state(limited) == before, seconds=10, show=lambda: state(limited) ^ before)
    first, whole = stalls.took(done, told.at), stalls.took(done, as_before)
    print(f"REPAIRED after {first:.2f} s, all of it after {whole:.2f}: {told.notice.message}")
    assert first < SECOND
    assert whole < SECOND


def change(pod: Pod, command: str) -> None:
    if "INDEX" in command:
        index = re.search(r"index (\d+)", pod.run("tc", "filter", "show", "dev", "eth0", "ingress"))
        assert index
        command = command.replace("INDEX", index[1])
    pod.run("sh", "-ec", command)


def test_eth0_renamed_and_back_is_limited_again_within_a_second(node: Node, limited: Pod) -> None:
    node.start(limited, **ANNOTATED)
    before = state(limited)
    for old, new in (("eth0", "eth9"), ("eth9", "eth0")):
        wanted = {line.replace("eth0", new) for line in before}
        with clock.Stalls.noted() as stalls:
            limited.run("ip", "link", "set", old, "down")
            limited.run("ip", "link", "set", old, "name", new)
            limited.run("ip", "link", "set", new, "up")
            done = time.monotonic()
            limited_again = clock.until(
                lambda: state(limited) == wanted,  # noqa: B023 - called in this turn alone
                seconds=10,
                show=lambda: state(limited) ^ wanted,  # noqa: B023 - as above
            )
        took = stalls.took(done, limited_again)
        print(f"{new} LIMITED again after {took:.2f} s")
        assert took < SECOND


@pytest.mark.parametrize(
    "value",
    [buckets.EMPTY_LIMIT, b"\1" * buckets.LIMIT_BYTES, FASTER, NO_RATE],
    ids=["emptied", "garbage", "another rate", "no rate"],
)
def test_limits_that_somebody_wrote_into_the_map_are_written_back_within_two_seconds(
    shaper: Shaper, node: Node, limited: Pod, value: bytes
) -> None:
    node.start(limited, **ANNOTATED)
    with intruder(shaper) as maps, clock.Stalls.noted() as stalls:
        bucket = bucket_of(shaper, limited)
        held = maps.read_limit(bucket)
        began = time.monotonic()
        maps.bpf.update(maps.limits, bucket, value)
        told = node.wait(limited, "BandwidthRepaired", since=began)
        print(f"REPAIRED after {told.at - began:.2f} s: {told.notice.message}")
        assert maps.read_limit(bucket) == held
    assert stalls.took(began, told.at) < 2 * SECOND


def test_what_somebody_wrote_into_a_free_slot_is_cleared(shaper: Shaper, node: Node, limited: Pod) -> None:
    node.start(limited, **ANNOTATED)
    with intruder(shaper) as maps:
        maps.bpf.update(maps.limits, 2 * shaper._program.slots, FASTER)
        clock.until(lambda: maps.read_limit(2 * shaper._program.slots) is None, seconds=10)


@contextmanager
def intruder(shaper: Shaper) -> Iterator[Program]:
    """The maps as somebody else finds them, who knows nothing of what the shaper wrote."""
    found = Program.adopt(shaper._program.program_id)
    assert found
    yield found
    found.close()


def bucket_of(shaper: Shaper, pod: Pod) -> int:
    (slot,) = [held.slot for owner, held in shaper._allocator.taken.items() if owner.pod_uid == pod.uid]
    return class_id(slot, Direction.EGRESS)


def test_a_foreign_qdisc_stays_and_when_it_goes_the_conflict_is_over(node: Node, limited: Pod) -> None:
    tbf = "root handle 1: tbf rate 1gbit burst 1m latency 5ms"
    limited.run("sh", "-ec", f"tc qdisc add dev eth0 {tbf}")
    node.start(limited, **ANNOTATED)
    conflict = node.wait(limited, "Conflict", since=0)
    assert "tbf 1:" in conflict.notice.message
    assert "limited to ingress 100M bit/s" in node.wait(limited, "BandwidthLimited", since=0).notice.message
    assert node.controller.pod_counts() == (1, 0, 1, 0, 0)
    assert limited.tc().count("ipvlan-bandwidth:") == 2
    assert "tbf 1:" in limited.tc()
    with clock.Stalls.noted() as stalls:
        began = time.monotonic()
        limited.run("tc", "qdisc", "del", "dev", "eth0", "root")
        done = time.monotonic()
        told = node.wait(limited, "BandwidthLimited", since=began)
    assert "what stood in the way is gone" in told.notice.message
    assert stalls.took(done, told.at) < SECOND
    assert "fq 1bd0: dev eth0" in limited.tc()


def test_a_foreign_qdisc_in_the_place_of_ours_is_not_replaced(node: Node, limited: Pod) -> None:
    node.start(limited, **ANNOTATED)
    before = state(limited)
    began = time.monotonic()
    limited.run("tc", "qdisc", "replace", "dev", "eth0", "root", "handle", "1:", "sfq")
    assert "sfq 1:" in node.wait(limited, "Conflict", since=began).notice.message
    lab.sleep(1)
    assert "qdisc sfq 1: dev eth0" in limited.tc()
    limited.run("tc", "qdisc", "del", "dev", "eth0", "root")
    node.wait(limited, "BandwidthLimited", since=began)
    assert state(limited) == before


def test_a_clsact_with_a_shared_block_is_a_conflict_until_it_goes(node: Node, limited: Pod) -> None:
    node.start(limited, egress="20M")
    before = state(limited)
    began = time.monotonic()
    shared = r"printf 'qdisc del dev eth0 clsact\nqdisc add dev eth0 egress_block 10 clsact' | tc -batch -"
    limited.run("sh", "-ec", shared)
    assert "shared block" in node.wait(limited, "Conflict", since=began).notice.message
    limited.run("tc", "qdisc", "del", "dev", "eth0", "clsact")
    node.wait(limited, "BandwidthLimited", since=began)
    assert state(limited) == before


def test_an_ingress_qdisc_that_excludes_clsact_is_a_conflict_until_it_goes(node: Node, limited: Pod, peer: Pod) -> None:
    limited.run("tc", "qdisc", "add", "dev", "eth0", "ingress")
    limited.run("tc", "filter", "add", "dev", "eth0", "ingress", "pref", "7", "matchall", "action", "ok")
    before = limited.tc()
    node.start(limited, ingress="20M")
    node.wait(limited, "Conflict", since=0)
    assert limited.tc() == before
    assert [told.notice.reason for told in node.told] == ["Conflict"]
    assert node.controller.pod_counts() == (1, 0, 0, 1, 0)
    with clock.Stalls.noted() as stalls:
        began = time.monotonic()
        limited.run("tc", "qdisc", "del", "dev", "eth0", "ingress")
        done = time.monotonic()
        told = node.wait(limited, "BandwidthLimited", since=began)
    assert stalls.took(done, told.at) < SECOND
    assert node.controller.pod_counts() == (1, 1, 0, 0, 0)
    assert lab.transfer(peer, limited, seconds=2).goodput < 20


def test_filters_of_others_stay_beside_ours_and_at_our_place(node: Node, limited: Pod, peer: Pod) -> None:
    """`1,6 0 0 0` is a classic program that matches nothing, so passes each packet on to the next filter."""
    node.start(limited, egress="20M")
    before = limited.tc()
    began = time.monotonic()
    add = "tc filter add dev eth0 egress"
    limited.run(
        "sh", "-ec", f"{add} pref 7 matchall action ok; {add} pref 1 handle 1 bpf bytecode '1,6 0 0 0' action ok"
    )
    assert "a filter that is not ours" in node.wait(limited, "Conflict", since=began).notice.message
    held = limited.tc()
    assert "pref 7 matchall" in held and held.count("pref 1 bpf chain 0 handle 0x1 ") == 1
    assert held.count("ipvlan-bandwidth:") == 1
    assert lab.transfer(limited, peer, seconds=2).goodput < 20
    limited.run("sh", "-ec", "tc filter del dev eth0 egress pref 7; tc filter del dev eth0 egress pref 1 handle 1 bpf")
    node.wait(limited, "BandwidthLimited", since=began)
    assert limited.tc() == before


LIKE_OURS = f"handle {HANDLE_CLSACT_OURS} matchall action mirred egress redirect dev {IFB_NAME}"


def replace_redirect(pod: Pod, place: str) -> None:
    """By one that is the same but for where it is; in one go, before ours can be back."""
    commands = f"filter del dev eth0 ingress pref {INGRESS_PRIORITY}\nfilter add dev eth0 ingress {place} {LIKE_OURS}"
    pod.run("sh", "-ec", f"printf '{commands}\n' | tc -batch -")


def test_a_redirection_like_ours_in_another_chain_is_not_taken_for_it(node: Node, limited: Pod, peer: Pod) -> None:
    node.start(limited, ingress="20M")
    began = time.monotonic()
    replace_redirect(limited, f"chain 5 pref {INGRESS_PRIORITY} protocol all")
    node.wait(limited, "BandwidthRepaired", since=began)
    assert lab.transfer(peer, limited, seconds=2).goodput < 20


def test_a_redirection_like_ours_of_one_protocol_is_a_conflict_until_it_goes(
    node: Node, limited: Pod, peer: Pod
) -> None:
    node.start(limited, ingress="20M")
    began = time.monotonic()
    replace_redirect(limited, f"pref {INGRESS_PRIORITY} protocol ipv6")
    assert "where the ingress limit belongs" in node.wait(limited, "Conflict", since=began).notice.message
    limited.run("tc", "filter", "del", "dev", "eth0", "ingress", "pref", str(INGRESS_PRIORITY))
    node.wait(limited, "BandwidthLimited", since=began)
    assert lab.transfer(peer, limited, seconds=2).goodput < 20


def test_a_filter_of_others_before_the_redirection_is_told_of(node: Node, limited: Pod, peer: Pod) -> None:
    node.start(limited, ingress="20M")
    began = time.monotonic()
    limited.run("sh", "-ec", "tc filter add dev eth0 ingress pref 7 matchall action continue")
    assert "(matchall, priority 7)" in node.wait(limited, "ForeignFilter", since=began).notice.message
    assert lab.transfer(peer, limited, seconds=2).goodput < 20
    assert "pref 7 matchall" in limited.tc()


def test_an_annotation_that_turns_bad_leaves_the_last_good_limit_also_after_a_restart(
    shaper: Shaper, limited: Pod
) -> None:
    with Node(shaper) as node:
        node.start(limited, **ANNOTATED)
        before = state(limited)
        node.annotate(limited, ingress="100m", egress="100M")
        told = node.wait(limited, "InvalidBandwidth", since=0)
        assert "the limit of 100M stays" in told.notice.message
        assert state(limited) == before
    with Node(shaper) as node:
        node.annotate(limited, ingress="100m", egress="100M")
        node.start(limited, ingress="100m", egress="100M")
        assert "the limit of 100M stays" in node.wait(limited, "InvalidBandwidth", since=0).notice.message
        assert state(limited) == before
        assert [told.notice.reason for told in node.told] == ["InvalidBandwidth"]


def test_the_queue_is_seen_while_it_is_long(shaper: Shaper, limited: Pod, peer: Pod) -> None:
    shaper.shape(limited.uid, limited.netns, lab.limits(egress="5M"))

    def queue_ms() -> float:
        return by_limit(shaper, limited, Direction.EGRESS).queue_ns / 1e6

    assert queue_ms() == 0
    with lab.serving(peer), lab.background(limited, peer, "-u", "-b", "20M", seconds=5) as result:
        lab.flowing(limited)
        clock.until(lambda: queue_ms() > 5, seconds=4)
        lab.sleep(2)  # after a second the flood is known as one, and its queue cut short for a moment
        seen = queue_ms()
        result()
    print(f"QUEUE {seen:.1f} ms under a flood")
    assert 5 < seen < 300
    clock.until(lambda: queue_ms() == 0, seconds=10)
