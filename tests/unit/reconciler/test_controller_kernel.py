"""What the kernel tells, refuses and loses."""

import asyncio

from reconciler import housekeeping
from reconciler.counters import DirectionCounters, PodCounters
from reconciler.kernel.errors import KernelLacksError, NetnsGoneError, ShapingError
from reconciler.model import Problem, ProblemKind
from tests.unit.reconciler.controller_bench import (
    M20,
    M100,
    STARTED,
    A,
    B,
    Bench,
    api_pod,
    metric,
    raised,
    sandbox,
    unshaped_seconds,
)
from webhook.common.contract import Direction, Limits

NO_IPVLAN = Problem(ProblemKind.NO_IPVLAN, "no ipvlan")


async def test_a_link_that_appears_later_is_looked_at_and_a_flood_of_changes_only_once(bench):
    await bench.controller.on_run(sandbox())
    calls = len(bench.kernel.calls)
    for _ in range(100):
        bench.controller.on_netns_changed([A, "/run/netns/unknown"])
    await bench.settle()
    assert len(bench.kernel.calls) == calls + 1
    for _ in range(100):
        bench.controller.on_any_changed()
    await bench.settle()
    assert len(bench.kernel.calls) == calls + 2
    assert bench.slept == [0.1, 0.1]


async def test_a_pod_that_keeps_changing_its_network_is_looked_at_each_time_but_ever_later(bench):
    await bench.controller.on_run(sandbox())
    calls = len(bench.kernel.calls)
    for _ in range(6):
        bench.controller.on_netns_changed([A])
        await bench.settle()
    assert len(bench.kernel.calls) == calls + 6
    assert bench.slept == [0.1, 0.1, 0.2, 0.4, 0.8, 0.8]


async def test_a_pod_whose_limits_somebody_wrote_into_the_map_is_looked_at(bench):
    await bench.controller.on_run(sandbox())
    await bench.controller.on_run(sandbox("s2", uid="u2", path=B))
    calls = len(bench.kernel.calls)
    bench.kernel.altered = ["u2"]
    bench.kernel.audit_failures = [ShapingError("no memory")]
    task = asyncio.create_task(bench.controller.housekeeping.run_audits())
    await bench.settle()
    task.cancel()
    assert set(bench.slept) == {housekeeping.AUDIT_S}
    assert [call[0] for call in bench.kernel.calls[calls:]] == ["u2"]


async def test_a_failure_is_told_once_and_tried_again_until_it_works(bench):
    bench.kernel.failing[A] = [ShapingError("no such module"), ShapingError("no such module")]
    await bench.controller.on_run(sandbox())
    assert bench.controller.pod_counts() == (1, 0, 0, 1, 0)
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}
    assert [reason for _, reason in bench.told.notices] == ["BandwidthFailed", "BandwidthLimited"]
    assert bench.slept[:2] == [1.0, 2.0]
    assert bench.controller.pod_counts() == (1, 1, 0, 0, 0)


async def test_a_failure_for_another_reason_is_told_again(bench):
    bench.kernel.failing[A] = [ShapingError("no slot"), ShapingError("no such module"), ShapingError("no such module")]
    await bench.controller.on_run(sandbox())
    await bench.settle()
    assert [reason for _, reason in bench.told.notices] == ["BandwidthFailed", "BandwidthFailed", "BandwidthLimited"]


async def test_a_pod_that_changes_all_the_time_while_it_fails_is_not_tried_again_more_often():
    bench = Bench()
    bench.kernel.failing[A] = [ShapingError("no such module")] * 5
    await bench.controller.on_synchronize([])
    await bench.settle()
    waiting = []

    async def wait_for_ever(seconds):
        waiting.append(seconds)
        await asyncio.Event().wait()

    bench.controller._failures._sleep = wait_for_ever
    for _ in range(4):
        await bench.controller.on_run(sandbox())
        await bench.settle()
    assert waiting == [1.0]


async def test_what_a_look_that_failed_may_have_left_goes_when_the_limit_is_not_wanted_any_more(bench):
    bench.kernel.failing[A] = [ShapingError("no such module")]
    await bench.controller.on_run(sandbox())
    bench.on_pod_event("MODIFIED", api_pod())
    await bench.settle()
    assert bench.kernel.calls[-1] == ("u1", A, Limits())
    assert bench.controller.pod_counts() == (0, 0, 0, 0, 0)


async def test_on_another_network_than_ipvlan_nothing_is_in_force_and_that_is_counted(bench):
    bench.kernel.interfaces, bench.kernel.problems = (), (NO_IPVLAN,)
    await bench.controller.on_run(sandbox(egress="20M"))
    assert bench.controller.pod_counts() == (1, 0, 0, 0, 1)
    assert bench.controller._state.limited() == []
    assert bench.told.notices == [("shop/web-0", "NoIpvlan")]
    bench.kernel.interfaces, bench.kernel.problems = ("eth0",), ()
    bench.controller.on_netns_changed([A])
    await bench.settle()
    assert bench.controller.pod_counts() == (1, 1, 0, 0, 0)


async def test_a_pod_that_was_never_admitted_and_has_no_ipvlan_is_told_and_counted_nowhere(bench):
    bench.kernel.interfaces = ()
    await bench.controller.on_run(sandbox(managed=False))
    assert bench.controller.pod_counts() == (0, 0, 0, 0, 0)
    assert bench.told.notices == []


async def test_an_interface_that_is_gone_for_a_moment_costs_no_last_good_limit(bench):
    await bench.controller.on_run(sandbox())
    bench.kernel.interfaces = ()
    bench.controller.on_netns_changed([A])
    await bench.settle()
    assert bench.controller._state.limited() == []
    bench.kernel.interfaces = ("eth0",)
    bench.on_pod_event("MODIFIED", api_pod(ingress="100m"))
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}
    assert bench.told.notices[-1] == ("shop/web-0", "InvalidBandwidth")


async def test_a_visit_reads_what_went_past_an_egress_limit_and_a_thorough_one_looks_at_the_pod(bench):
    await bench.controller.on_run(sandbox(egress="20M"))
    await bench.controller.on_run(sandbox("s2", uid="u2", path=B))
    limited, only_ingress = bench.controller._state.limited()
    calls = len(bench.kernel.calls)
    assert await bench.controller.resync.sample(limited, full=False) == ("u1", A, ("eth0",))
    assert await bench.controller.resync.sample(only_ingress, full=False) is None
    assert len(bench.kernel.calls) == calls
    assert await bench.controller.resync.sample(limited, full=True) == ("u1", A, ("eth0",))
    assert len(bench.kernel.calls) == calls + 1
    bench.kernel.failing[A] = [NetnsGoneError("gone")]
    assert await bench.controller.resync.sample(limited, full=False) is None
    bench.kernel.problems = (Problem(ProblemKind.CONFLICT, "a tbf"),)
    assert await bench.controller.resync.sample(limited, full=True) is None


async def test_an_interface_that_has_lost_its_limit_by_another_name_is_told_once_and_for_as_long_as_there_is_a_limit(
    bench,
):
    bench.kernel.interfaces = ("eth0", "veth0")
    await bench.controller.on_run(sandbox())
    bench.kernel.interfaces, bench.kernel.others = ("eth0",), {3: "v0", 4: "net1"}
    for _ in range(2):
        bench.controller.enqueue("u1")
        await bench.settle()
    assert [reason for _, reason in bench.told.notices] == ["BandwidthLimited", "RenamedInterface"]
    (held,) = bench.controller._state.limited()
    (notice,) = bench.controller._state.applied(held).notices
    assert notice.message.startswith("v0 shared the limit")
    bench.on_pod_event("MODIFIED", api_pod("u1"))
    await bench.settle()
    assert [reason for _, reason in bench.told.notices][2:] == ["BandwidthRemoved"]
    bench.on_pod_event("MODIFIED", api_pod("u1", egress="20M"))
    await bench.settle()
    assert [reason for _, reason in bench.told.notices][3:] == ["BandwidthLimited", "RenamedInterface"]


L3S = Problem(ProblemKind.L3S_INGRESS, "mode l3s")
NO_IFB = KernelLacksError("CONFIG_IFB (module ifb)", "create the ifb vethbw0: Operation not supported")


async def test_a_pod_that_has_only_some_of_its_limits_is_partial_and_one_that_has_none_has_failed(bench):
    bench.kernel.problems, bench.kernel.missing = (L3S,), {Direction.INGRESS: ("eth0",)}
    await bench.controller.on_run(sandbox(egress="20M"))
    assert bench.controller.pod_counts() == (1, 0, 1, 0, 0)
    await bench.controller.on_run(sandbox("s2", uid="u2", path=B))
    assert bench.controller.pod_counts() == (2, 0, 1, 1, 0)
    assert [reason for _, reason in bench.told.notices] == ["BandwidthLimited", "L3sIngress", "L3sIngress"]
    bench.kernel.interfaces = ("eth0", "eth1")
    bench.controller.enqueue("u2")
    await bench.settle()
    assert bench.controller.pod_counts() == (2, 0, 2, 0, 0), "it is limited on one of two interfaces"
    bench.kernel.missing = {}
    for uid in ("u1", "u2"):
        bench.controller.enqueue(uid)
    await bench.settle()
    assert bench.controller.pod_counts() == (2, 2, 0, 0, 0)


async def test_what_is_not_in_force_is_taken_away_all_the_same_when_it_is_not_wanted_any_more(bench):
    bench.kernel.problems, bench.kernel.missing = (L3S,), {Direction.INGRESS: ("eth0",)}
    await bench.controller.on_run(sandbox())
    bench.on_pod_event("MODIFIED", api_pod())
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits()}
    assert bench.told.notices == [("shop/web-0", "L3sIngress")]


async def test_a_pod_of_which_nothing_can_be_in_force_is_visited_and_was_not_late(bench):
    bench.kernel.missing = {Direction.INGRESS: ("eth0",)}
    await bench.controller.on_run(sandbox())
    (withheld,) = bench.controller._state.limited()
    calls = len(bench.kernel.calls)
    assert await bench.controller.resync.sample(withheld, full=True) is None
    assert len(bench.kernel.calls) == calls + 1
    await bench.controller.on_synchronize([sandbox()])
    await bench.settle()
    bench.kernel.missing = {}
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    await bench.settle()
    assert [reason for _, reason in bench.told.notices] == ["BandwidthLimited"]
    assert unshaped_seconds(bench) == 0


async def test_on_a_kernel_without_ifb_egress_is_in_force_and_ingress_is_told_and_tried_again_until_it_is(bench):
    bench.kernel.missing, bench.kernel.lack = {Direction.INGRESS: ("eth0",)}, NO_IFB
    bench.gate = asyncio.Event()
    await bench.controller.on_run(sandbox(egress="20M"))
    for _ in range(3):
        bench.controller.enqueue("u1")
        await bench.settle()
    assert [reason for _, reason in bench.told.notices] == ["BandwidthLimited", "BandwidthFailed"]
    assert bench.controller.pod_counts() == (1, 0, 1, 0, 0)
    assert metric(bench, "reconcile_errors_total", kind="KernelLacksError") == 4
    assert bench.slept == [1.0], "each look failed, and one of them is tried again by itself"
    bench.kernel.missing, bench.kernel.lack = {}, None
    bench.gate.set()
    await bench.settle()
    assert [reason for _, reason in bench.told.notices][2:] == ["BandwidthLimited"]
    assert bench.controller.pod_counts() == (1, 1, 0, 0, 0)


async def test_the_metrics_show_as_in_force_what_is(bench):
    bench.kernel.missing = {Direction.INGRESS: ("eth0",)}
    await bench.controller.on_run(sandbox(egress="20M"))
    figures = DirectionCounters(20_000_000, bytes=5, packets=0, drops=0, marks=0)
    bench.kernel.slot_owners = lambda: ["u1"]
    bench.kernel.counters = lambda _: [PodCounters("u1", A, dict.fromkeys(Direction, figures))]
    bench.metrics.pods.show(await bench.controller.housekeeping.counters())
    values = {
        (name, each.value): metric(bench, name, namespace="shop", pod="web-0", direction=each.value)
        for name in ("limit_bits_per_second", "bytes_total")
        for each in Direction
    }
    assert values == {
        ("limit_bits_per_second", "ingress"): None,
        ("limit_bits_per_second", "egress"): 20_000_000,
        ("bytes_total", "ingress"): 5,
        ("bytes_total", "egress"): 5,
    }


async def test_a_netns_that_went_meanwhile_is_no_failure(bench):
    await bench.controller.on_run(sandbox())
    told = list(bench.told.notices)
    bench.kernel.failing[A] = [NetnsGoneError("gone")]
    bench.controller.enqueue("u1")
    await bench.settle()
    assert bench.kernel.failing[A] == []
    assert bench.told.notices == told


async def test_what_vanished_without_a_word_is_collected(bench):
    await bench.controller.on_run(sandbox())
    bench.kernel.held[("u9", B)] = Limits(ingress=M20)
    bench.kernel.gone.add(B)
    task = asyncio.create_task(bench.controller.housekeeping.run_garbage_collector())
    await bench.settle()
    task.cancel()
    assert set(bench.kernel.held) == {("u1", A)}


async def test_a_sandbox_whose_netns_is_gone_is_forgotten_though_the_runtime_says_nothing(bench):
    await bench.controller.on_run(sandbox())
    bench.kernel.gone.add(A)
    task = asyncio.create_task(bench.controller.housekeeping.run_garbage_collector())
    await bench.settle()
    task.cancel()
    assert bench.kernel.held == {}
    assert bench.controller.pod_counts() == (0, 0, 0, 0, 0)


async def test_a_collector_that_cannot_tell_what_is_gone_frees_nothing_and_goes_on(bench):
    await bench.controller.on_run(sandbox())
    answers = [ShapingError("too many open files"), {}]
    bench.kernel.inodes = lambda _: answer if isinstance(answer := answers.pop(0), dict) else raised(answer)
    bench.kernel.held[("u9", B)] = Limits(ingress=M20)
    bench.kernel.gone.add(B)
    task = asyncio.create_task(bench.controller.housekeeping.run_garbage_collector())
    await bench.settle()
    task.cancel()
    assert answers == []
    assert set(bench.kernel.held) == {("u1", A)}


async def test_a_sandbox_let_go_while_its_look_waited_is_not_shaped_again(bench):
    await bench.controller.on_run(sandbox())
    async with bench.controller._kernel.lock():
        bench.controller.enqueue("u1")
        await bench.settle()
        stopping = asyncio.create_task(bench.controller.on_stop(sandbox()))
        await bench.settle()
    await stopping
    await bench.settle()
    assert bench.kernel.held == {}


async def test_a_pod_that_starts_while_many_are_counted_waits_for_a_few_of_them(bench):
    keys = [(f"u{number}", f"/run/netns/{number}") for number in range(100)]
    batches, hooks = [], []

    def counters(owners):
        if not hooks:
            hooks.append(asyncio.create_task(bench.controller.on_run(sandbox("late", uid="late", path=A))))
        batches.append((len(owners), ("late", A) in bench.kernel.held))
        return [PodCounters(uid, path, {}) for uid, path in owners]

    for uid, path in keys:
        await bench.controller.on_run(sandbox(uid, uid=uid, path=path))
    bench.kernel.slot_owners, bench.kernel.counters = lambda: keys, counters
    assert len(await bench.controller.housekeeping.counters()) == 100
    assert [size for size, _ in batches] == [32, 32, 32, 4]
    assert batches[1][1] or batches[2][1], "it was limited in between"


async def test_pods_that_cannot_be_counted_are_left_out_and_the_others_are_counted(bench, caplog):
    keys = [(f"u{number}", f"/run/netns/{number}") for number in range(40)]
    for uid, path in keys:
        await bench.controller.on_run(sandbox(uid, uid=uid, path=path))
    bench.kernel.slot_owners = lambda: keys
    answers = [ShapingError("no memory"), [PodCounters("u39", "/run/netns/39", {})]]
    bench.kernel.counters = lambda _: answer if isinstance(answer := answers.pop(0), list) else raised(answer)
    assert [counted.pod_uid for _, counted in await bench.controller.housekeeping.counters()] == ["u39"]
    assert "some Pods were not counted" in caplog.text
