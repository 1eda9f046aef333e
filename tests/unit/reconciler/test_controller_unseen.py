"""Pods whose network namespace is where the reconciler does not look, as where its mount does not propagate."""

import asyncio

import pytest

from reconciler.kernel.errors import NetnsGoneError, ShapingError
from reconciler.node_state import PodCounts
from tests.unit.reconciler.controller_bench import STARTED, A, B, Bench, api_pod, sandbox
from webhook.common.contract import Limits

FAILED = ("shop/web-0", "BandwidthFailed")
ENDED = {"containerStatuses": [{"state": {"terminated": {"startedAt": "2001-09-09T01:46:40Z"}}}]}


def out_of_sight(bench, *paths):
    """Makes network namespaces invisible; gives what makes them visible."""
    shape, bench.kernel.gone = bench.kernel.shape, set(paths)

    def unseen(uid, path, limits):
        if path in bench.kernel.gone:
            raise NetnsGoneError(f"no {path}")
        return shape(uid, path, limits)

    bench.kernel.shape = unseen
    return bench.kernel.gone.clear


@pytest.fixture
async def restarted(begin):
    """A controller that starts when a Pod runs whose netns it does not see."""
    bench = Bench()
    bench.gate = asyncio.Event()
    out_of_sight(bench, A)
    await begin(bench)
    await bench.controller.on_synchronize([sandbox()])
    await bench.settle()
    return bench


async def test_a_pod_that_begins_where_it_is_not_seen_counts_as_failed_until_it_ends_or_is_seen(bench):
    appear = out_of_sight(bench, A, B)
    bench.gate = asyncio.Event()
    await bench.controller.on_run(sandbox())
    await bench.controller.on_run(sandbox("s2", uid="u2", path=B))
    for _ in range(2):
        await bench.controller.housekeeping.collect_garbage()
        assert bench.controller.pod_counts() == PodCounts(2, 0, 0, 2)
        await bench.controller.on_synchronize([sandbox(), sandbox("s2", uid="u2", path=B)])
        await bench.settle()
    assert bench.told.notices == [FAILED] * 2
    await bench.controller.on_stop(sandbox())
    assert bench.controller.pod_counts() == PodCounts(1, 0, 0, 1)
    appear()
    bench.gate.set()
    await bench.settle()
    assert bench.controller.pod_counts() == PodCounts(1, 1, 0, 0)


async def test_a_pod_that_is_not_seen_and_is_annotated_later_is_told(bench):
    out_of_sight(bench, A)
    await bench.controller.on_run(sandbox(ingress=None))
    bench.on_pods([api_pod()])
    await bench.controller.housekeeping.collect_garbage()
    assert bench.told.notices == []
    bench.on_pod_event("MODIFIED", api_pod(ingress="20M"))
    await bench.settle()
    assert bench.told.notices == [FAILED]
    assert bench.controller.pod_counts() == PodCounts(1, 0, 0, 1)


async def test_a_pod_without_a_limit_that_was_never_seen_is_forgotten_though_its_end_is_not_told(bench):
    bench.on_pods([])
    await bench.controller.on_run(sandbox(ingress=None))
    out_of_sight(bench, A)
    await bench.controller.housekeeping.collect_garbage()
    assert list(bench.controller._sandboxes) == []


async def test_a_pod_that_may_have_ended_while_its_hook_waited_is_told_only_if_it_runs(bench):
    out_of_sight(bench, A)
    async with bench.controller._kernel.lock():
        bench.controller.on_hook_timeout(sandbox())  # also where the hook waits behind another
        hook = asyncio.create_task(bench.controller.on_run(sandbox()))
        await bench.settle()
    await hook
    bench.on_pods([api_pod(ingress="100M")])
    await bench.settle()
    assert bench.told.notices == []
    bench.on_pod_event("MODIFIED", api_pod(ingress="100M", status=STARTED))
    await bench.settle()
    assert bench.told.notices == [FAILED]


async def test_a_hook_that_is_late_before_its_sandbox_is_told_of_stays_late_through_a_replay(bench):
    out_of_sight(bench, A)
    bench.controller.on_hook_timeout(sandbox())
    await bench.controller.on_synchronize([sandbox("s2", uid="u2", path=B, ingress=None)])
    await bench.controller.on_run(sandbox())
    await bench.settle()
    assert FAILED not in bench.told.notices


async def test_what_a_pod_without_a_limit_is_to_be_told_is_told_when_the_kernel_answers_again(bench):
    bench.kernel.failing[A] = [ShapingError("too many open files")]
    await bench.controller.on_run(sandbox(ingress="100m"))
    await bench.settle()
    assert bench.told.notices == [("shop/web-0", "InvalidBandwidth")]


async def test_a_pod_that_asks_for_no_limit_is_told_of_no_failure(bench):
    out_of_sight(bench, A)
    await bench.controller.on_run(sandbox(managed=False))
    bench.kernel.failing[B] = [ShapingError("too many open files")]
    await bench.controller.on_run(sandbox("s2", uid="u2", path=B, managed=False))
    await bench.settle()
    assert bench.kernel.failing[B] == []
    assert FAILED not in bench.told.notices


async def test_of_those_that_are_listed_only_one_that_runs_is_told_when_no_other_sandbox_can_be_expected(restarted):
    await restarted.controller.housekeeping.collect_garbage()
    assert list(restarted.controller._sandboxes), "the API server may know that it runs"
    restarted.on_pods([api_pod(ingress="100M", status=STARTED)])
    await restarted.settle()
    assert restarted.told.notices == []
    restarted.gate.set()
    await restarted.settle()
    assert restarted.told.notices == [FAILED]
    await restarted.controller.housekeeping.collect_garbage()
    assert restarted.controller.pod_counts() == PodCounts(1, 0, 0, 1)
    restarted.on_pod_event("MODIFIED", api_pod(ingress="100M", status=ENDED))
    await restarted.controller.housekeeping.collect_garbage()
    assert restarted.controller.pod_counts() == PodCounts(0, 0, 0, 0)
    restarted.on_pod_event("MODIFIED", api_pod(ingress="100M", status=STARTED))
    await restarted.settle()
    assert restarted.controller.pod_counts() == PodCounts(1, 0, 0, 1), "a container was between two starts"
    restarted.on_pod_event("DELETED", api_pod(ingress="100M", status=ENDED))
    await restarted.controller.housekeeping.collect_garbage()
    assert list(restarted.controller._sandboxes) == []


@pytest.mark.parametrize("status", [{}, ENDED])
async def test_a_listed_pod_that_ended_while_nobody_was_there_is_told_nothing(restarted, status):
    restarted.on_pods([api_pod(ingress="100M", status=status)])
    restarted.gate.set()
    await restarted.settle()
    await restarted.controller.housekeeping.collect_garbage()
    assert restarted.told.notices == []
    assert restarted.controller.pod_counts() == PodCounts(0, 0, 0, 0)


@pytest.mark.parametrize("in_order", [True, False])
async def test_a_sandbox_that_ended_before_the_one_that_runs_is_told_nothing(restarted, in_order):
    both = [sandbox(), sandbox("s2", path=B)]
    restarted.on_pods([api_pod(ingress="100M", status=STARTED)])
    await restarted.controller.on_synchronize(both if in_order else both[::-1])
    restarted.gate.set()
    await restarted.settle()
    assert restarted.kernel.held.keys() == {("u1", B)}
    assert FAILED not in restarted.told.notices
    assert restarted.controller.pod_counts() == PodCounts(1, 1, 0, 0)


async def test_of_a_pods_sandboxes_that_are_listed_and_not_seen_one_runs_at_most(restarted):
    restarted.kernel.gone.add(B)
    restarted.on_pods([api_pod(ingress="100M", status=STARTED)])
    await restarted.controller.on_synchronize([sandbox(), sandbox("s2", path=B)])
    restarted.gate.set()
    await restarted.settle()
    assert restarted.told.notices == [FAILED]
    assert restarted.controller.pod_counts() == PodCounts(1, 0, 0, 1)


async def test_a_pod_whose_netns_was_seen_and_went_is_gone(bench):
    await bench.controller.on_run(sandbox())
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    out_of_sight(bench, A)
    bench.controller.enqueue("u1")
    await bench.settle()
    await bench.controller.housekeeping.collect_garbage()
    assert FAILED not in bench.told.notices
    assert list(bench.controller._sandboxes) == []
    assert Limits() not in bench.kernel.held.values()
