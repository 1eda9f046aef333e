"""Starts: nobody waits for what cannot be, and what waits is limited as soon as it can be."""

import asyncio
from errno import ENOMEM

import pytest

from reconciler.kernel.errors import NetnsGoneError, ShapingError
from reconciler.node_state import PodCounts
from reconciler.sandboxes import Key
from tests.unit.reconciler.controller_bench import (
    M20,
    M100,
    STARTED,
    STARTED_S,
    A,
    B,
    Bench,
    api_pod,
    sandbox,
    unshaped_seconds,
)
from webhook.common.contract import Limits


async def test_a_defect_that_one_pod_brings_out_is_told_tried_again_and_costs_the_others_nothing(bench):
    shape = bench.kernel.shape
    bench.kernel.shape = lambda uid, path, limits: "no outcome" if path == A else shape(uid, path, limits)
    await bench.controller.on_run(sandbox())
    await bench.controller.on_run(sandbox("s2", uid="u2", path=B))
    await bench.settle()
    assert bench.told.notices[:2] == [("shop/web-0", "BandwidthFailed"), ("shop/web-0", "BandwidthLimited")]
    assert bench.slept
    assert bench.controller.pod_counts() == PodCounts(2, 1, 0, 1)


async def test_a_pod_that_the_api_server_no_longer_has_is_as_it_was_last_until_its_sandbox_ends(bench):
    await bench.controller.on_run(sandbox())
    await bench.controller.on_run(sandbox("s2", uid="u2", path=B))
    bench.on_pods([api_pod("u1", ingress="20M"), api_pod("u2", ingress="20M")])
    await bench.settle()
    bench.on_pods([api_pod("u1", ingress="20M")])
    bench.on_pod_event("DELETED", api_pod("u1", ingress="20M"))
    for uid in ("u1", "u2"):
        bench.controller.enqueue(uid)
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20), ("u2", B): Limits(ingress=M20)}
    await bench.controller.on_stop(sandbox())
    await bench.controller.on_stop(sandbox("s2", uid="u2", path=B))
    assert bench.told.notices[-2:] == [("u1", "forgotten"), ("u2", "forgotten")]


async def test_pods_that_ran_before_are_told_that_the_program_cannot_be_loaded_once_for_each_reason(begin):
    bench = Bench(start_failures=[ShapingError("no sch_fq"), ShapingError("no sch_fq"), ShapingError("no memory")])
    bench.gate = asyncio.Event()
    await begin(bench)
    bench.on_pods([api_pod(ingress="100M")])
    await bench.controller.on_synchronize([sandbox()])
    failed = []
    for _ in range(3):
        await bench.settle()
        failed.append(bench.told.notices.count(("shop/web-0", "BandwidthFailed")))
        bench.gate.set()
        bench.gate = asyncio.Event()
    assert failed == [1, 1, 2]
    bench.gate.set()


async def test_a_pod_whose_limits_hold_while_the_program_cannot_be_loaded_is_not_told_that_it_has_none(begin):
    bench = Bench(start_failures=[ShapingError("no memory")])
    bench.kernel.found = {Key("u1", A): Limits(ingress=M100)}
    bench.kernel.held = dict(bench.kernel.found)
    bench.gate = asyncio.Event()
    await begin(bench)
    await bench.controller.on_synchronize([sandbox()])
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    await bench.settle()
    assert bench.told.messages == [
        "limits in force stay, and no other can be set on this node: no memory",
        "this Pod has no limit but one set before, as none can be set on this node now: no memory",
    ]
    bench.gate.set()
    await bench.settle()
    assert bench.told.notices[2:] == [("the node", "ShapingReady"), ("shop/web-0", "BandwidthLimited")]
    assert unshaped_seconds(bench) == 0


async def test_a_pod_that_starts_while_the_program_loads_waits_for_it_and_others_do_not(begin):
    bench = Bench()
    await begin(bench)
    hook = asyncio.create_task(bench.controller.on_run(sandbox()))
    stopped = asyncio.create_task(bench.controller.on_run(sandbox("s2", uid="u2", path=B)))
    await bench.settle()
    await bench.controller.on_run(sandbox("s3", uid="u3", path="/run/netns/c", ingress=None))
    await bench.controller.on_stop(sandbox("s2", uid="u2", path=B))
    assert not hook.done()
    assert bench.kernel.held == {}
    await bench.controller.on_synchronize([sandbox()])
    await asyncio.gather(hook, stopped)
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}


async def test_no_pod_waits_for_a_program_that_cannot_be_loaded_and_each_is_limited_and_told_when_it_can(begin):
    bench = Bench(start_failures=[ShapingError("no sch_fq")])
    loaded = bench.gate = asyncio.Event()
    bench.now_s = STARTED_S
    await begin(bench)
    await bench.controller.on_synchronize([])
    await bench.settle()
    for _ in range(2):
        await bench.controller.on_run(sandbox())
    await bench.controller.on_run(sandbox("s2", uid="u2", path=B))
    await bench.controller.on_stop(sandbox("s2", uid="u2", path=B))
    assert bench.kernel.held == {}
    assert bench.controller.pod_counts() == (1, 0, 0, 1, 0)
    bench.now_s += 30
    loaded.set()
    await bench.settle()
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}
    assert [reason for who, reason in bench.told.notices if who == "shop/web-0"] == [
        "BandwidthFailed",
        "BandwidthFailed",
        "BandwidthLimited",
        "RanUnlimited",
    ]
    assert unshaped_seconds(bench) == 30


async def test_a_pod_that_was_never_admitted_is_told_that_when_the_program_is_loaded_and_no_failure(begin):
    bench = Bench(start_failures=[ShapingError("no sch_fq")])
    bench.gate = asyncio.Event()
    await begin(bench)
    hook = asyncio.create_task(bench.controller.on_run(sandbox("s2", uid="u2", path=B, managed=False)))
    await bench.settle()
    assert hook.done(), "it waits for nothing"
    await bench.controller.on_synchronize([sandbox(managed=False)])
    bench.on_pods([])
    await bench.settle()
    assert bench.told.notices == [("the node", "CannotShape")]
    bench.gate.set()
    await bench.settle()
    assert bench.told.notices[1:] == [("the node", "ShapingReady"), *[("shop/web-0", "NotManaged")] * 2]


async def test_hooks_and_looks_that_wait_for_the_first_try_go_on_when_that_fails(begin):
    bench = Bench(start_failures=[ShapingError("no sch_fq")])
    loaded = bench.gate = asyncio.Event()
    await begin(bench)
    hook = asyncio.create_task(bench.controller.on_run(sandbox()))
    bench.on_pods([api_pod(ingress="100M")])
    await bench.settle()
    assert not hook.done()
    await bench.controller.on_synchronize([sandbox()])
    await hook
    await bench.controller.on_run(sandbox("s2", uid="u2", path=B))
    bench.on_pod_event("ADDED", api_pod("u2", ingress="20M"))
    await bench.settle()
    assert bench.kernel.held == {}
    assert bench.controller.pod_counts() == (2, 0, 0, 2, 0)
    loaded.set()
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100), ("u2", B): Limits(ingress=M20)}


@pytest.mark.parametrize("failure", [BlockingIOError("fork: try again"), RuntimeError("a defect")])
async def test_whatever_keeps_the_program_from_loading_is_told_and_tried_again(begin, failure):
    bench = Bench(start_failures=[failure])
    await begin(bench)
    await bench.controller.on_synchronize([sandbox()])
    await bench.settle()
    assert bench.controller.ready
    assert bench.told.notices[0] == ("the node", "CannotShape")
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}


async def test_a_netns_that_the_reconciler_does_not_see_when_a_pod_starts_is_a_failure(bench):
    bench.kernel.failing[A] = [NetnsGoneError("no /run/netns/a")]
    await bench.controller.on_run(sandbox())
    assert bench.told.notices == [("shop/web-0", "BandwidthFailed")]
    assert bench.controller.pod_counts() == (1, 0, 0, 1, 0)
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}


async def test_a_kernel_that_cannot_shape_yet_is_tried_again_and_pods_wait_for_it(begin):
    bench = Bench(start_failures=[ShapingError("no sch_fq"), ShapingError("no sch_fq")])
    assert not bench.controller.ready
    assert await bench.controller.housekeeping.counters() == []
    assert bench.controller.trouble is None
    await begin(bench)
    await bench.controller.on_synchronize([sandbox()])
    await bench.settle()
    assert bench.controller.ready
    assert bench.controller.trouble is None
    assert bench.told.notices == [
        ("the node", "CannotShape"),
        ("shop/web-0", "BandwidthFailed"),
        ("the node", "ShapingReady"),
        ("shop/web-0", "BandwidthLimited"),
    ]
    assert bench.started_with == [("u1", A)]
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}


async def test_what_takes_long_of_a_start_is_done_first_and_nobody_waits_for_it_again_when_it_fails(begin):
    bench = Bench()
    bench.prepare_failures = [ShapingError("no module bcc")]
    await begin(bench)
    await bench.controller.prepare()
    assert bench.prepared == 1
    assert bench.told.notices == [("the node", "CannotShape")]
    assert bench.controller.trouble == "no module bcc"
    await bench.controller.on_run(sandbox())
    assert bench.told.notices[1:] == [("shop/web-0", "BandwidthFailed")]
    await bench.controller.on_synchronize([sandbox()])
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}
    assert bench.controller.ready


async def test_a_start_that_was_prepared_is_no_news():
    bench = Bench()
    await bench.controller.prepare()
    assert (bench.prepared, bench.told.notices, bench.controller.ready) == (1, [], False)


async def test_a_pod_that_starts_while_many_are_let_go_waits_for_one_of_them(bench):
    gone = [sandbox(f"s{number}", uid=f"u{number}", path=f"/run/netns/{number}") for number in range(5)]
    await bench.controller.on_synchronize(gone)
    await bench.settle()
    done = []
    bench.kernel.gone = {each.netns_path for each in gone}
    bench.kernel.release = lambda uid, _path: done.append(uid)
    await bench.controller.on_synchronize([])
    await asyncio.sleep(0)
    await bench.controller.on_run(sandbox("new", uid="new", path=A))
    assert len(done) <= 1
    await bench.settle()
    assert len(done) == 5


async def test_a_program_whose_limits_cannot_be_read_is_let_go_and_what_keeps_it_is_told_and_tried_again(begin):
    bench = Bench()
    bench.kernel.counter_failures = [OSError(ENOMEM, "no memory")]
    await begin(bench)
    await bench.controller.on_synchronize([sandbox()])
    await bench.settle()
    assert bench.kernel.closed == 1
    assert bench.told.notices[0] == ("the node", "CannotShape")
    assert bench.controller.ready
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}


async def test_work_in_the_background_that_fails_ends_the_reconciler_as_nobody_else_would_notice():
    async def fails():
        raise RuntimeError("a defect")

    bench = Bench()
    run = asyncio.create_task(bench.controller.run())
    await bench.controller.on_synchronize([sandbox()])
    await bench.settle()
    bench.controller.housekeeping.collect_garbage = fails
    await bench.controller.on_synchronize([])
    await bench.settle()
    with pytest.raises(RuntimeError, match="a defect"):
        await asyncio.wait_for(run, 1)
