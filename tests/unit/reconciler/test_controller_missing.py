"""Pods that run and ask for a limit, and that the runtime never named: nobody else would tell of them."""

import asyncio

import pytest

from reconciler.housekeeping import UNREPORTED_CHECK_S
from reconciler.node_state import PodCounts
from reconciler.sandboxes import Key
from tests.unit.reconciler.controller_bench import M100, STARTED, A, Bench, api_pod, sandbox
from webhook.common.contract import Limits

FAILED = ("shop/web-0", "BandwidthFailed")


async def calls(bench, count):
    for _ in range(count):
        bench.controller.housekeeping.check_unreported()
        await bench.settle()


@pytest.mark.parametrize("named", ["on_run", "on_synchronize"])
async def test_a_running_pod_that_the_runtime_does_not_name_is_told_once_and_counts_as_failed_until_it_does(
    bench, named
):
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    await calls(bench, 1)
    assert bench.told.notices == [], "its hook may be on its way"
    await calls(bench, 2)
    await bench.controller.on_synchronize([])
    await calls(bench, 1)
    assert bench.told.notices == [FAILED]
    assert bench.controller.pod_counts() == PodCounts(1, 0, 0, 1)
    await getattr(bench.controller, named)(sandbox() if named == "on_run" else [sandbox()])
    assert bench.controller.pod_counts().failed == 0
    await calls(bench, 2)
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}
    assert bench.told.notices.count(FAILED) == 1
    assert bench.controller.pod_counts() == PodCounts(1, 1, 0, 0)


@pytest.mark.parametrize(
    "other",
    [
        {"status": {}},
        {"metadata": {**api_pod(ingress="100M")["metadata"], "labels": {}}},
        {"metadata": api_pod()["metadata"]},
        {"spec": {"hostNetwork": True}},
    ],
    ids=["it does not run", "it was not admitted", "it asks for nothing", "it is on the host's network"],
)
async def test_a_pod_that_is_to_have_no_limit_is_not_missed(bench, other):
    bench.on_pods([{**api_pod(ingress="100M", status=STARTED), **other}])
    await calls(bench, 3)
    assert bench.told.notices == []
    assert bench.controller.pod_counts() == PodCounts(0, 0, 0, 0)


async def test_a_pod_that_was_named_once_is_not_missed_when_it_has_ended_and_the_api_server_is_away(bench):
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    await bench.controller.on_run(sandbox())
    await bench.controller.on_stop(sandbox())
    await calls(bench, 3)
    assert FAILED not in bench.told.notices


async def test_nobody_is_missed_while_the_runtime_has_told_of_no_pods(begin):
    bench = Bench()
    await begin(bench)
    await bench.controller.prepare()
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    await calls(bench, 3)
    await bench.controller.on_synchronize([])
    await calls(bench, 1)
    assert bench.told.notices == []
    await calls(bench, 1)
    assert bench.told.notices == [FAILED]


async def test_a_runtime_that_never_tells_of_its_pods_keeps_nobody_from_being_missed_for_more_than_five_minutes(begin):
    bench = Bench()
    await begin(bench)
    await bench.controller.prepare()
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    before = 300 / UNREPORTED_CHECK_S - 1
    await calls(bench, int(before))
    assert bench.told.notices == []
    await calls(bench, 1)
    assert bench.told.notices == [FAILED]
    assert bench.controller.pod_counts() == PodCounts(1, 0, 0, 1)


async def test_nobody_is_missed_while_a_limit_is_found_that_may_be_theirs_and_the_runtime_tells_nothing(begin):
    """An older program limits the Pod, and its entries cannot be read: only the runtime knows the netns."""
    bench = Bench()
    bench.kernel.found = {Key("", A): None}
    await begin(bench)
    await bench.controller.prepare()
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    await bench.settle()
    await calls(bench, 10)
    assert bench.told.notices == []
    await bench.controller.on_synchronize([])
    await calls(bench, 2)
    assert bench.told.notices == [FAILED], "a runtime that tells of its Pods, and leaves this one out, is believed"


async def test_one_that_is_missed_is_no_more_when_it_ends_and_is_told_anew_if_it_is_missed_again(bench):
    for _ in range(2):
        bench.on_pod_event("ADDED", api_pod(ingress="100M", status=STARTED))
        await calls(bench, 2)
        assert bench.controller.pod_counts() == PodCounts(1, 0, 0, 1)
        bench.on_pod_event("MODIFIED", api_pod(ingress="100M"))
        assert bench.controller.pod_counts() == PodCounts(0, 0, 0, 0)
        bench.on_pod_event("DELETED", api_pod(ingress="100M"))
        await calls(bench, 1)
    assert bench.told.notices.count(FAILED) == 2


async def test_the_roll_is_called_now_and_then(bench):
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    checks = asyncio.create_task(bench.controller.housekeeping.run_unreported_checks())
    await bench.settle()
    assert set(bench.slept) == {UNREPORTED_CHECK_S}
    assert set(bench.told.notices) == {FAILED}
    checks.cancel()
