"""What the runtime and the API server tell of Pods becomes limits."""

import pytest

from tests.unit.reconciler.controller_bench import (
    M20,
    M100,
    STARTED,
    A,
    B,
    api_pod,
    metric,
    sandbox,
)
from webhook.common.contract import Limits


async def test_a_starting_pod_is_limited_when_the_hook_returns(bench):
    moments = iter((1.0, 1.5))
    bench.controller._monotonic = lambda: next(moments)
    await bench.controller.on_run(sandbox())
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}
    assert bench.told.notices == [("shop/web-0", "BandwidthLimited")]
    assert (metric(bench, "sandbox_seconds_count"), metric(bench, "sandbox_seconds_sum")) == (1, 0.5)


async def test_a_pod_on_the_hosts_network_is_left_alone(bench):
    await bench.controller.on_run(sandbox(path=""))
    assert bench.kernel.calls == []


async def test_an_unlimited_pod_costs_nothing(bench):
    await bench.controller.on_run(sandbox(ingress=None))
    assert bench.kernel.calls == []
    assert metric(bench, "sandbox_seconds_count") == 0


async def test_the_kernel_follows_the_annotation_while_the_pod_runs(bench):
    await bench.controller.on_run(sandbox())
    bench.on_pod_event("MODIFIED", api_pod(ingress="20M"))
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20)}
    bench.on_pod_event("MODIFIED", api_pod())
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits()}
    assert [reason for _, reason in bench.told.notices] == [
        "BandwidthLimited",
        "BandwidthChanged",
        "BandwidthRemoved",
    ]


async def test_an_event_that_changes_nothing_that_matters_is_not_looked_at(bench):
    await bench.controller.on_run(sandbox())
    bench.on_pod_event("MODIFIED", api_pod(ingress="100M"))
    await bench.settle()
    calls = len(bench.kernel.calls)
    bench.on_pod_event("MODIFIED", api_pod(ingress="100M"))
    bench.on_pod_event("MODIFIED", {"kind": "nonsense"})
    await bench.settle()
    assert len(bench.kernel.calls) == calls


async def test_neither_the_first_list_nor_a_containers_start_or_end_costs_a_look_at_a_pod_that_has_its_limits(bench):
    await bench.controller.on_run(sandbox())
    await bench.controller.on_run(sandbox("s2", uid="u2", path=B, ingress="100m"))
    calls = len(bench.kernel.calls)
    ended = {"containerStatuses": [{"state": {"terminated": {"startedAt": "2001-09-09T01:46:40Z"}}}]}
    for status in ({}, STARTED, ended):
        bench.on_pods([api_pod(ingress="100M", status=status), api_pod("u2", ingress="100m", status=status)])
        await bench.settle()
    assert len(bench.kernel.calls) == calls
    bench.on_pod_event("MODIFIED", api_pod("u2", ingress="1", status=STARTED))
    await bench.settle()
    assert len(bench.kernel.calls) == calls + 1, "it has another notice"


async def test_an_annotation_that_is_changed_back_during_the_look_for_the_change_is_not_missed(bench):
    await bench.controller.on_run(sandbox())
    shape = bench.kernel.shape

    def change_back(*asked):
        bench.kernel.shape = shape
        bench.on_pod_event("MODIFIED", api_pod(ingress="100M"))
        return shape(*asked)

    bench.kernel.shape = change_back
    bench.on_pod_event("MODIFIED", api_pod(ingress="20M"))
    await bench.settle()
    assert [limits.ingress for _, _, limits in bench.kernel.calls] == [M100, M20, M100]


async def test_what_the_watch_knows_is_newer_than_the_runtimes_word(bench):
    bench.on_pods([api_pod(ingress="20M")])
    await bench.controller.on_run(sandbox(ingress="100M"))
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20)}


async def test_a_list_finds_what_was_missed(bench):
    bench.on_pods([api_pod(ingress="100M")])
    await bench.controller.on_run(sandbox())
    bench.on_pods([api_pod(ingress="20M")])
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20)}


async def test_a_recreated_sandbox_is_limited_again_and_the_old_one_let_go(bench):
    await bench.controller.on_run(sandbox())
    await bench.controller.on_run(sandbox("s2", path=B))
    await bench.controller.on_stop(sandbox())
    await bench.controller.on_remove(sandbox())
    assert bench.kernel.held == {("u1", B): Limits(ingress=M100)}


@pytest.mark.parametrize("turned_bad", [{"ingress": "100m"}, {"managed": False}], ids=["annotation", "label"])
async def test_the_last_good_limit_stays_in_another_sandbox_of_the_same_pod(bench, turned_bad):
    bench.on_pods([api_pod(ingress="100M")])
    await bench.controller.on_run(sandbox())
    pod = api_pod(ingress=turned_bad.get("ingress", "100M"))
    if "managed" in turned_bad:
        pod["metadata"]["labels"] = {}
    bench.on_pod_event("MODIFIED", pod)
    await bench.settle()
    await bench.controller.on_stop(sandbox())
    await bench.controller.on_run(sandbox("s2", path=B, **turned_bad))
    assert bench.kernel.held == {("u1", B): Limits(ingress=M100)}


async def test_a_replay_looks_at_every_pod(bench):
    await bench.controller.on_synchronize([sandbox(), sandbox("s2", uid="u2", path=B)])
    await bench.settle()
    assert set(bench.kernel.held) == {("u1", A), ("u2", B)}


async def test_a_pod_never_admitted_is_told_of_and_not_limited(bench):
    await bench.controller.on_run(sandbox(managed=False))
    assert bench.kernel.held == {("u1", A): Limits()}
    assert bench.told.notices == [("shop/web-0", "NotManaged")]


async def test_a_deleted_pod_is_forgotten_by_the_events(bench):
    bench.on_pod_event("ADDED", api_pod(ingress="20M"))
    bench.on_pod_event("DELETED", api_pod(ingress="20M"))
    assert bench.told.notices == [("u1", "forgotten")]


@pytest.mark.parametrize("how", ["the watch says so", "a list lacks it"])
async def test_a_pod_that_has_finished_keeps_its_limit_as_long_as_its_sandbox_and_nobody_is_told(bench, how):
    """As of one that has finished the API server tells as of one that was deleted."""
    bench.on_pod_event("ADDED", api_pod(ingress="100M"))
    await bench.controller.on_run(sandbox(ingress="100M"))
    bench.on_pod_event("MODIFIED", api_pod(ingress="20M", status=STARTED))
    await bench.settle()
    told = list(bench.told.notices)
    if how == "a list lacks it":
        bench.on_pods([])
    else:
        bench.on_pod_event("DELETED", api_pod(ingress="20M", status=STARTED))
    bench.controller.on_netns_changed([A])
    bench.controller.enqueue("u1")
    await bench.controller.on_synchronize([sandbox(ingress="100M")])
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20)}
    assert bench.told.notices == told
    assert bench.controller.pod_counts() == (1, 1, 0, 0, 0)
    await bench.controller.on_stop(sandbox())
    assert bench.kernel.held == {}
    assert bench.told.notices == [*told, ("u1", "forgotten")]


async def test_replays_one_after_the_other_as_of_a_runtime_that_dies_again_and_again_cost_one_look(bench):
    pods = [sandbox(f"s{number}", uid=f"u{number}", path=f"/run/netns/{number}") for number in range(250)]
    await bench.controller.on_synchronize(pods)
    for _ in range(20):
        await bench.controller.on_synchronize(pods)
    for _ in range(100):
        await bench.settle()
    assert len(bench.kernel.held) == len(pods)
    assert len(bench.kernel.calls) <= len(pods) + 1


async def test_a_static_pod_is_limited_by_the_label_in_its_manifest_whatever_becomes_of_its_mirror_pod(bench):
    static = sandbox()
    static.annotations["kubernetes.io/config.source"] = "file"
    await bench.controller.on_run(static)
    mirror = api_pod("another uid", ingress="20M")
    mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "u1"
    bench.on_pods([mirror])
    bench.on_pod_event("DELETED", mirror)
    bench.controller.enqueue("u1")
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}
    assert bench.told.notices == [("shop/web-0", "BandwidthLimited")]
