"""What failed is tried again: soon after a first failure, and at once when what was missing is there."""

import asyncio

import pytest

from reconciler.kernel.errors import NoSlotLeftError, ShapingError
from tests.unit.reconciler.controller_bench import M20, M100, A, B, api_pod, raised, sandbox
from webhook.common.contract import Limits

C = "/run/netns/c"


@pytest.fixture
def waiting(bench):
    """The retries that wait, in seconds; none comes."""
    begun = []

    async def wait_for_ever(seconds):
        begun.append(seconds)
        await asyncio.Event().wait()

    bench.controller._failures._sleep = wait_for_ever
    return begun


async def test_a_failure_after_a_success_is_tried_again_soon_whatever_retry_was_waiting(bench, waiting):
    for _ in range(2):
        bench.kernel.failing[A] = [ShapingError("busy")]
        await bench.controller.on_run(sandbox())
        bench.controller.enqueue("u1")
        await bench.settle()
        assert bench.controller.pod_counts() == (1, 1, 0, 0, 0)
    assert waiting == [1.0, 1.0]


async def test_a_failure_is_tried_again_soon_though_a_subscription_is_to_be_tried_again_in_a_minute(bench, waiting):
    bench.monitor.watch = lambda _: raised(ShapingError("too many open files"))
    await bench.controller.on_run(sandbox())
    bench.kernel.failing[A] = [ShapingError("busy"), ShapingError("busy")]
    for limit in ("20M", "30M"):
        bench.on_pod_event("MODIFIED", api_pod(ingress=limit))
        await bench.settle()
    assert waiting == [60.0, 1.0], "and no third while the second waits"


@pytest.mark.parametrize("how", ["its Pod ends", "its Pod asks for no limit", "its Pod vanished"])
async def test_a_pod_without_a_slot_is_limited_as_soon_as_one_is_free(bench, how):
    bench.gate = asyncio.Event()  # no retry comes
    bench.kernel.held["u9", C] = Limits(ingress=M20)
    await bench.controller.on_run(sandbox())
    bench.kernel.failing[B] = [NoSlotLeftError("all 2 slots are taken")]
    await bench.controller.on_run(sandbox("s2", uid="u2", path=B))
    assert bench.controller.pod_counts() == (2, 1, 0, 1, 0)
    if how == "its Pod ends":
        await bench.controller.on_stop(sandbox())
    elif how == "its Pod asks for no limit":
        bench.on_pod_event("MODIFIED", api_pod())
    else:
        bench.kernel.gone.add(C)
        await bench.controller.housekeeping.collect_garbage()
    await bench.settle()
    assert bench.kernel.held["u2", B] == Limits(ingress=M100)


async def test_a_slot_of_a_pod_that_failed_and_asks_for_no_limit_any_more_is_free_for_others_at_once(bench):
    bench.gate = asyncio.Event()
    bench.kernel.failing[A] = [ShapingError("busy")]
    await bench.controller.on_run(sandbox())
    bench.kernel.held["u1", A] = Limits(ingress=M100)  # in the map alone
    bench.kernel.failing[B] = [NoSlotLeftError("all slots are taken")]
    await bench.controller.on_run(sandbox("s2", uid="u2", path=B))
    bench.on_pod_event("MODIFIED", api_pod())
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(), ("u2", B): Limits(ingress=M100)}


async def test_a_pod_that_fails_for_another_reason_waits_for_no_slot(bench):
    bench.gate = asyncio.Event()
    await bench.controller.on_run(sandbox())
    for error in (NoSlotLeftError("all 2 slots are taken"), ShapingError("busy")):
        bench.kernel.failing[B] = [error]
        await bench.controller.on_run(sandbox("s2", uid="u2", path=B))
    calls = len(bench.kernel.calls)
    await bench.controller.on_stop(sandbox())
    await bench.settle()
    assert len(bench.kernel.calls) == calls
