"""What is done for all Pods together, and what one of them may do to it."""

import asyncio

from reconciler import housekeeping
from reconciler.counters import PodCounters
from tests.unit.reconciler.controller_bench import A, B, raised, sandbox


async def test_no_defect_that_one_pod_brings_out_ends_what_is_done_for_all(bench, caplog):
    await bench.controller.on_run(sandbox(egress="20M"))
    await bench.settle()
    (held,) = bench.controller._state.limited()
    defect = ValueError("odd")
    for call in ("sample", "collect", "inodes", "counters", "audit", "release"):
        setattr(bench.kernel, call, lambda *_: raised(defect))
    bench.kernel.slot_owners = lambda: [("u1", A)]
    assert await bench.controller.resync.sample(held, full=False) is None
    await bench.controller.housekeeping.collect_garbage()
    await bench.controller.housekeeping.audit()
    assert await bench.controller.housekeeping.counters() == []
    bench.kernel.inodes = lambda _: {}
    await bench.controller.housekeeping.collect_garbage()
    await bench.controller.on_stop(sandbox())
    assert caplog.text.count("ValueError: odd") >= 6


async def test_another_mode_of_one_pods_interface_has_all_pods_looked_at_once_as_it_is_their_nics(bench):
    await bench.controller.on_run(sandbox())
    await bench.controller.on_run(sandbox("s2", uid="u2", path=B))
    bench.controller.on_netns_changed([A, B])
    await bench.settle()
    bench.kernel.calls.clear()
    bench.kernel.mode = "l3s"
    bench.controller.on_netns_changed([A])
    await bench.settle()
    assert {path for _, path, _ in bench.kernel.calls} == {A, B}
    bench.kernel.calls.clear()
    bench.controller.on_netns_changed([A])
    await bench.settle()
    assert [path for _, path, _ in bench.kernel.calls] == [A]


async def test_a_collector_asks_what_has_vanished_only_in_its_turn(bench):
    await bench.controller.on_run(sandbox())
    asked = []

    def inodes(keys):
        asked.append(keys)
        return {}

    bench.kernel.inodes = inodes
    async with bench.controller._kernel.lock():
        collecting = asyncio.create_task(bench.controller.housekeeping.collect_garbage())
        await bench.settle()
        assert asked == []
    await collecting
    assert len(asked) == 1


async def test_a_kernel_that_does_not_answer_costs_a_scrape_its_counters_and_nothing_else(bench, monkeypatch):
    monkeypatch.setattr(housekeeping, "COUNTERS_TIMEOUT_S", 0.01)
    await bench.controller.on_run(sandbox())
    bench.kernel.slot_owners = lambda: [("u1", A)]
    bench.kernel.counters = lambda _: [PodCounters("u1", A, {})]
    async with asyncio.timeout(10), bench.controller._kernel.lock():
        assert await bench.controller.housekeeping.counters() == []
    assert len(await bench.controller.housekeeping.counters()) == 1
