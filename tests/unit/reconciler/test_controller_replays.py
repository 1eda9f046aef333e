"""Replays: the runtime's list of Pods may lack some, or their network namespaces, or name these otherwise."""

import asyncio

import pytest

from reconciler.kernel.errors import ShapingError
from reconciler.node_state import PodCounts
from reconciler.sandboxes import Key
from tests.unit.reconciler.controller_bench import (
    M20,
    M100,
    STARTED,
    A,
    Bench,
    api_pod,
    sandbox,
    unshaped_seconds,
)
from webhook.common.contract import Limits


@pytest.mark.parametrize("told", [[], [sandbox(path="")]], ids=["left out", "without its netns"])
async def test_a_sandbox_that_a_replay_does_not_tell_of_stays_limited_while_its_netns_is_there(bench, told):
    await bench.controller.on_run(sandbox())
    await bench.controller.on_synchronize(told)
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}
    bench.on_pod_event("MODIFIED", api_pod(ingress="20M"))
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20)}
    bench.kernel.gone.add(A)
    await bench.controller.on_synchronize(told)
    await bench.settle()
    assert bench.kernel.held == {}
    assert bench.controller.pod_counts() == PodCounts(0, 0, 0, 0)


async def test_a_pod_of_which_the_runtime_names_no_netns_is_told_once_when_it_asks_for_a_limit(bench):
    await bench.controller.on_run(sandbox(path=""))
    await bench.settle()
    assert bench.told.notices == []
    for ingress in ("100M", "20M"):
        bench.on_pod_event("MODIFIED", api_pod(ingress=ingress))
        await bench.settle()
    assert bench.told.notices == [("shop/web-0", "BandwidthFailed")]
    assert bench.controller.pod_counts() == PodCounts(1, 0, 0, 1)
    await bench.controller.on_stop(sandbox(path=""))
    assert bench.controller.pod_counts() == PodCounts(0, 0, 0, 0)


async def test_a_pod_that_is_listed_without_a_netns_and_holds_nothing_is_told_when_it_asks_for_a_limit(begin):
    bench = Bench()
    await begin(bench)
    bench.gate = asyncio.Event()
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    await bench.controller.on_synchronize([sandbox(path="")])
    await bench.settle()
    assert bench.told.notices == [], "its next sandbox may be about to come"
    bench.gate.set()
    await bench.settle()
    assert bench.told.notices == [("shop/web-0", "BandwidthFailed")]
    assert bench.controller.pod_counts() == PodCounts(1, 0, 0, 1)
    await bench.controller.on_synchronize([sandbox(path="")])
    bench.on_pod_event("MODIFIED", api_pod(ingress="20M", status=STARTED))
    await bench.settle()
    assert len(bench.told.notices) == 1
    await bench.controller.on_stop(sandbox(path=""))
    assert bench.controller.pod_counts() == PodCounts(0, 0, 0, 0)


async def test_the_next_sandbox_of_a_pod_that_is_listed_without_a_netns_is_waited_for_anew_after_each_list(begin):
    bench = Bench()
    await begin(bench)
    gate = bench.gate = asyncio.Event()
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    await bench.controller.on_synchronize([sandbox(path="")])
    await bench.settle()
    bench.gate = asyncio.Event()
    await bench.controller.on_synchronize([sandbox(path="")])
    gate.set()
    await bench.settle()
    await bench.controller.on_run(sandbox("s2"))
    bench.gate.set()
    await bench.settle()
    assert bench.told.notices == [("shop/web-0", "BandwidthLimited")]


async def test_a_pod_without_a_netns_is_told_that_no_pod_can_be_limited_while_that_is_so(begin):
    bench = Bench(start_failures=[ShapingError("no sch_fq")])
    bench.gate = asyncio.Event()
    await begin(bench)
    await bench.controller.on_run(sandbox(path=""))
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    await bench.settle()
    assert bench.told.notices == []
    await bench.controller.on_synchronize([sandbox(path="")])
    await bench.settle()
    assert bench.told.notices == [("the node", "CannotShape"), ("shop/web-0", "BandwidthFailed")]
    bench.gate.set()
    await bench.settle()
    assert bench.told.notices[2:] == [("the node", "ShapingReady"), ("shop/web-0", "BandwidthFailed")]


async def test_a_limit_that_was_in_force_all_along_is_found_when_a_later_replay_tells_of_its_pod(begin):
    bench = Bench()
    bench.kernel.found = {Key("u1", A): Limits(ingress=M20)}
    bench.kernel.held = dict(bench.kernel.found)
    await begin(bench)
    await bench.controller.on_synchronize([])
    await bench.settle()
    await bench.controller.on_synchronize([sandbox()])
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20)}, "the runtime's word is older"
    bench.on_pods([api_pod(ingress="20M", status=STARTED)])
    await bench.settle()
    assert bench.told.notices == []
    assert unshaped_seconds(bench) == 0


async def test_a_pod_that_was_found_by_what_its_netns_holds_is_the_one_that_the_runtime_names_later(begin):
    bench = Bench()
    bench.kernel.found = {Key("u1", A): Limits(ingress=M100)}
    bench.kernel.held = dict(bench.kernel.found)
    await begin(bench)
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    await bench.controller.on_synchronize([sandbox(path="")])
    await bench.settle()
    await bench.controller.on_synchronize([sandbox(path=f"/var{A}")])
    await bench.settle()
    assert bench.told.notices == []
    assert bench.controller.pod_counts() == PodCounts(1, 1, 0, 0)
    assert unshaped_seconds(bench) == 0
