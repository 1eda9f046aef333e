"""A runtime that tells nothing, as while it stops a container: Pods that are limited are followed all the same."""

import asyncio

import pytest

from reconciler.controller import SYNCHRONIZE_TIMEOUT_S
from reconciler.counters import DirectionCounters, PodCounters
from reconciler.node_state import PodCounts
from reconciler.sandboxes import Key
from tests.unit.reconciler.controller_bench import (
    M20,
    M100,
    STARTED,
    A,
    B,
    Bench,
    api_pod,
    metric,
    sandbox,
    unshaped_seconds,
)
from webhook.common.contract import Direction, Limits


@pytest.fixture
async def untold(begin):
    """A controller that has found a limit in the kernel, and is not told whose it is."""
    untold = Bench()
    untold.kernel.found = {Key("u1", A): Limits(ingress=M100)}
    untold.kernel.held = dict(untold.kernel.found)
    await begin(untold)
    await untold.controller.prepare()
    return untold


@pytest.mark.parametrize("listed_first", [True, False])
async def test_a_limit_that_is_in_force_is_followed_and_the_runtime_tells_nothing_new_of_it_later(untold, listed_first):
    if not listed_first:
        await untold.settle()
    untold.on_pods([api_pod(ingress="100M", status=STARTED)])
    await untold.settle()
    assert untold.controller.pod_counts() == PodCounts(1, 1, 0, 0)
    untold.on_pod_event("MODIFIED", api_pod(ingress="20M", status=STARTED))
    await untold.settle()
    assert untold.kernel.held == {("u1", A): Limits(ingress=M20)}
    del untold.kernel.held["u1", A]
    untold.controller.on_netns_changed([A])
    await untold.settle()
    assert untold.kernel.held == {("u1", A): Limits(ingress=M20)}
    told = ["BandwidthChanged", "BandwidthRepaired"]
    assert metric(untold, "drift_repairs_total") == 1
    for _ in range(2):
        await untold.controller.on_synchronize([sandbox()])  # as it began: with 100M
        await untold.settle()
        assert untold.kernel.held == {("u1", A): Limits(ingress=M20)}
        assert [reason for _, reason in untold.told.notices] == told
    assert unshaped_seconds(untold) == 0
    assert untold.controller.pod_counts() == PodCounts(1, 1, 0, 0)
    await untold.controller.on_stop(sandbox())
    assert untold.kernel.held == {}
    assert list(untold.controller._sandboxes) == []


async def test_a_limit_is_followed_from_the_first_word_of_its_pod_on(untold):
    untold.on_pods([])
    await untold.settle()
    assert untold.kernel.held == {("u1", A): Limits(ingress=M100)}, "nobody says that it is not wanted"
    untold.on_pod_event("ADDED", api_pod("u2", ingress="20M", status=STARTED))
    untold.on_pod_event("ADDED", api_pod(ingress="20M", status=STARTED))
    await untold.settle()
    assert untold.kernel.held == {("u1", A): Limits(ingress=M20)}


async def test_a_pod_that_goes_before_the_runtime_tells_of_it_is_let_go(untold):
    untold.on_pods([api_pod(ingress="100M", status=STARTED)])
    await untold.settle()
    untold.on_pod_event("DELETED", api_pod(ingress="100M", status=STARTED))
    await untold.settle()
    assert untold.kernel.held == {("u1", A): Limits(ingress=M100)}
    untold.kernel.gone.add(A)
    await untold.controller.housekeeping.collect_garbage()
    assert untold.kernel.held == {}
    await untold.controller.on_synchronize([])
    await untold.settle()
    assert list(untold.controller._sandboxes) == []


@pytest.mark.parametrize("end", ["on_stop", "on_remove"])
async def test_a_pod_that_the_runtimes_list_leaves_out_is_let_go_when_the_runtime_tells_of_its_end(untold, end):
    untold.on_pods([api_pod(ingress="100M", status=STARTED)])
    await untold.settle()
    await untold.controller.on_synchronize([])
    await untold.settle()
    assert untold.kernel.held == {("u1", A): Limits(ingress=M100)}
    await getattr(untold.controller, end)(sandbox())
    assert untold.kernel.held == {}
    assert list(untold.controller._sandboxes) == []
    untold.on_pod_event("MODIFIED", api_pod(ingress="20M", status=STARTED))
    await untold.settle()
    assert untold.kernel.held == {}
    assert "BandwidthRemoved" not in [reason for _, reason in untold.told.notices]


async def test_a_pod_whose_end_the_runtime_told_is_not_missing_though_it_told_nothing_else_of_it(untold):
    untold.on_pods([api_pod(ingress="100M", status=STARTED)])
    await untold.controller.on_synchronize([])
    await untold.settle()
    await untold.controller.on_stop(sandbox())
    for _ in range(2):  # the API server, which is away, would say that it has ended
        untold.controller.housekeeping.check_unreported()
        await untold.settle()
    assert "BandwidthFailed" not in [reason for _, reason in untold.told.notices]
    assert untold.controller.pod_counts() == PodCounts(0, 0, 0, 0)


@pytest.mark.parametrize("listed_first", [True, False])
async def test_a_pod_that_ends_while_the_kernel_is_looked_into_is_not_taken_up_again(untold, listed_first):
    stops = []

    def counters(_owners=None):
        stops.append(asyncio.create_task(untold.controller.on_stop(sandbox())))
        return []

    untold.kernel.counters = counters
    pods = [api_pod(ingress="100M", status=STARTED)]
    if listed_first:
        untold.on_pods(pods)
    await untold.controller.on_synchronize([sandbox()])
    await untold.settle()
    untold.on_pods(pods)
    await untold.settle()
    assert [stop.done() for stop in stops] == [True]
    assert list(untold.controller._sandboxes) == []
    assert untold.controller.pod_counts() == PodCounts(0, 0, 0, 0)
    assert untold.kernel.calls == []
    untold.kernel.gone.add(A)
    await untold.controller.housekeeping.collect_garbage()
    assert untold.kernel.held == {}


async def test_another_pod_that_the_runtime_tells_of_then_is_limited_and_ran_unlimited(untold):
    untold.on_pods([api_pod(uid, ingress="100M", status=STARTED) for uid in ("u1", "u2")])
    await untold.settle()
    assert untold.controller.pod_counts() == PodCounts(1, 1, 0, 0)
    await untold.controller.on_synchronize([sandbox(), sandbox("s2", uid="u2", path=B)])
    await untold.settle()
    assert untold.kernel.held == {key: Limits(ingress=M100) for key in (("u1", A), ("u2", B))}
    assert [reason for _, reason in untold.told.notices] == ["RanUnlimited", "BandwidthLimited"]
    assert unshaped_seconds(untold) == 30


async def test_a_limit_that_was_in_the_map_alone_was_not_in_force_though_the_runtime_tells_later(untold):
    figures = DirectionCounters(100_000_000, bytes=0, packets=0, drops=0, marks=0)
    untold.kernel.counters = lambda _owners=None: [PodCounters("u1", A, {Direction.INGRESS: figures})]
    untold.kernel.found, untold.kernel.held = {}, {}
    untold.on_pods([api_pod(ingress="100M", status=STARTED)])
    await untold.settle()
    await untold.controller.on_synchronize([sandbox()])
    await untold.settle()
    assert untold.kernel.held == {("u1", A): Limits(ingress=M100)}
    assert [reason for _, reason in untold.told.notices] == ["RanUnlimited", "BandwidthLimited"]
    assert unshaped_seconds(untold) == 30


async def test_what_does_not_tell_whose_it_is_stays_until_the_runtime_and_the_api_server_have_told(untold):
    untold.kernel.found = {Key("", A): None}
    await untold.settle()
    untold.gate = asyncio.Event()
    await untold.controller.on_synchronize([sandbox()])
    await untold.settle()
    assert untold.kernel.calls == []
    untold.on_pods([api_pod(ingress="100M", status=STARTED)])
    await untold.settle()
    assert [key for *key, _ in untold.kernel.calls] == [["u1", A]]
    assert untold.told.notices == []
    assert unshaped_seconds(untold) == 0


async def test_a_runtime_that_tells_in_time_is_waited_for(untold):
    await untold.controller.on_synchronize([sandbox()])
    await untold.settle()
    assert untold.slept[0] == SYNCHRONIZE_TIMEOUT_S
    assert untold.started_with == [("u1", A)]
