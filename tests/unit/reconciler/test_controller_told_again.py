"""The API server forgets an event after an hour: what still stands is told again by then, and no oftener."""

import asyncio

import pytest

from reconciler.housekeeping import RECORD_AGAIN_CHECKS, UNREPORTED_CHECK_S
from reconciler.kernel.errors import NetnsGoneError, ShapingError
from reconciler.model import Problem, ProblemKind
from tests.unit.reconciler.controller_bench import STARTED, A, Bench, api_pod, sandbox

HOUR_S = 3600


async def pass_an_hour(bench):
    """Each minute the Pods are looked at, as what failed is."""
    minutes, done = 0, asyncio.Event()
    bench.gate = asyncio.Event()  # nobody else's wait is over

    async def minute(seconds):
        nonlocal minutes
        assert seconds == UNREPORTED_CHECK_S
        bench.controller.enqueue("u1")
        await bench.settle()
        minutes += 1
        if minutes * UNREPORTED_CHECK_S > HOUR_S:
            done.set()
            await asyncio.Event().wait()

    bench.controller.housekeeping._sleep = minute
    calls = asyncio.create_task(bench.controller.housekeeping.run_unreported_checks())
    await done.wait()
    calls.cancel()


def fails(bench):
    bench.kernel.failing[A] = [ShapingError("no")] * 100


def is_in_conflict(bench):
    bench.kernel.problems = (Problem(ProblemKind.CONFLICT, "a tbf"),)


def is_on_another_network(bench):
    bench.kernel.interfaces, bench.kernel.problems = (), (Problem(ProblemKind.NO_IPVLAN, "no ipvlan"),)


@pytest.mark.parametrize(
    ("stands", "pod", "reason"),
    [
        (fails, {}, "BandwidthFailed"),
        (is_in_conflict, {}, "Conflict"),
        (is_on_another_network, {}, "NoIpvlan"),
        (lambda _: None, {"ingress": "many"}, "InvalidBandwidth"),
        (lambda _: None, {"managed": False}, "NotManaged"),
    ],
    ids=["failed", "conflict", "another network", "invalid", "never admitted"],
)
async def test_what_stands_for_an_hour_is_told_twice_and_is_not_told_when_it_is_over(bench, stands, pod, reason):
    stands(bench)
    await bench.controller.on_run(sandbox(**pod))
    await pass_an_hour(bench)
    assert bench.told.notices.count(("shop/web-0", reason)) == 2
    await bench.controller.on_stop(sandbox(**pod))
    await pass_an_hour(bench)
    assert bench.told.notices.count(("shop/web-0", reason)) == 2
    assert RECORD_AGAIN_CHECKS * UNREPORTED_CHECK_S < HOUR_S


async def test_a_pod_that_is_missing_for_an_hour_is_told_so_twice(bench):
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    await pass_an_hour(bench)
    assert bench.told.notices == [("shop/web-0", "BandwidthFailed")] * 2


async def without_a_program(begin):
    """A bench that has one Pod and cannot load the shaper."""
    bench = Bench(start_failures=[ShapingError("no sch_fq")])
    bench.gate = asyncio.Event()
    await begin(bench)
    bench.on_pods([api_pod(ingress="100M")])
    await bench.controller.on_synchronize([sandbox()])
    await bench.settle()
    return bench


async def test_that_no_pod_can_be_limited_is_told_on_the_node_twice_in_an_hour_and_each_pod_is_told_too(begin):
    bench = await without_a_program(begin)
    await pass_an_hour(bench)
    assert bench.told.notices.count(("the node", "CannotShape")) == 2
    assert bench.told.notices.count(("shop/web-0", "BandwidthFailed")) == 2


async def test_a_pod_that_asks_for_no_limit_any_more_is_not_told_again_that_no_pod_can_be_limited(begin):
    bench = await without_a_program(begin)
    assert bench.told.notices.count(("shop/web-0", "BandwidthFailed")) == 1
    bench.on_pod_event("MODIFIED", api_pod())
    await pass_an_hour(bench)
    assert bench.told.notices.count(("the node", "CannotShape")) == 2
    assert bench.told.notices.count(("shop/web-0", "BandwidthFailed")) == 1


async def test_a_pod_whose_netns_is_never_seen_is_not_told_again_when_it_asks_for_no_limit_any_more(bench):
    bench.kernel.gone.add(A)
    bench.kernel.failing[A] = [NetnsGoneError(f"no {A}")] * 1000
    await bench.controller.on_run(sandbox())
    await bench.settle()
    assert bench.told.notices == [("shop/web-0", "BandwidthFailed")]
    bench.on_pod_event("MODIFIED", api_pod(status=STARTED))
    await pass_an_hour(bench)
    assert bench.told.notices == [("shop/web-0", "BandwidthFailed")]


async def test_a_limit_that_cannot_be_taken_away_is_told_again_though_nobody_asks_for_it_any_more(bench):
    await bench.controller.on_run(sandbox())
    bench.gate = asyncio.Event()
    fails(bench)
    bench.on_pod_event("MODIFIED", api_pod(status=STARTED))
    await pass_an_hour(bench)
    assert bench.told.notices.count(("shop/web-0", "BandwidthFailed")) == 2


async def test_of_what_is_as_it_should_be_nothing_is_told_again(bench):
    await bench.controller.on_run(sandbox())
    await bench.settle()
    before = list(bench.told.notices)
    await pass_an_hour(bench)
    assert bench.told.notices == before
