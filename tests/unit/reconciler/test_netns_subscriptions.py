"""A Pod's netns is listened to before it is looked at."""

import pytest

from reconciler.kernel.errors import NetnsGoneError, ShapingError
from tests.unit.reconciler.controller_bench import M100, A, api_pod, raised, sandbox
from webhook.common.contract import Limits


def changes_at_the_next_look(bench):
    """Somebody changes something right after the kernel was looked at, and who listens there is told."""
    shape = bench.kernel.shape

    def changed(uid, path, limits):
        bench.kernel.shape = shape
        outcome = shape(uid, path, limits)
        if path in bench.monitor.watched:
            bench.controller.on_netns_changed([path])
        return outcome

    bench.kernel.shape = changed


async def test_what_changes_right_after_the_first_look_is_looked_at(bench):
    changes_at_the_next_look(bench)
    await bench.controller.on_run(sandbox())
    await bench.settle()
    assert bench.kernel.calls == [("u1", A, Limits(ingress=M100))] * 2


async def test_a_pod_whose_first_look_failed_is_not_looked_at_for_what_the_kernel_reports_of_the_try(bench):
    bench.kernel.failing[A] = [ShapingError("no such module")]
    await bench.controller.on_run(sandbox())
    assert bench.monitor.watched == set()
    await bench.settle()
    assert bench.monitor.watched == {A}
    bench.kernel.failing[A] = [ShapingError("busy")]
    bench.on_pod_event("MODIFIED", api_pod(ingress="20M"))
    await bench.settle()
    assert bench.monitor.watched == {A}


@pytest.mark.parametrize(
    ("error", "messages"),
    [(NetnsGoneError("gone"), []), (ShapingError("too many open files"), ["cannot subscribe to a Pod's netns"])],
)
async def test_a_pod_is_limited_where_its_netns_cannot_be_listened_to(bench, caplog, error, messages):
    bench.monitor.watch = lambda _: raised(error)
    await bench.controller.on_run(sandbox())
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}
    assert caplog.messages == messages


async def test_a_netns_that_could_not_be_listened_to_is_tried_again(bench):
    watch = bench.monitor.watch

    def watch_next_time(_):
        bench.monitor.watch = watch
        raise ShapingError("too many open files")

    bench.monitor.watch = watch_next_time
    bench.kernel.interfaces = ()
    await bench.controller.on_run(sandbox())
    assert bench.monitor.watched == set()
    await bench.settle()
    assert bench.monitor.watched == {A}
