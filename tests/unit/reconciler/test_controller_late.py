"""Who ran without the limits that it asks for, and for how long: counted, and told once."""

import asyncio
from pathlib import Path

import pytest

from reconciler.counters import DirectionCounters, PodCounters
from reconciler.kernel.errors import ShapingError
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
from webhook.common.contract import Direction, Limits

DOCS = Path(__file__).parents[3] / "docs"
ENDED = {"containerStatuses": [{"state": {"terminated": {"startedAt": "2001-09-09T01:46:40Z"}}}]}


@pytest.fixture
async def starting(begin):
    """A controller that the runtime has told nothing yet."""
    starting = Bench()
    await begin(starting)
    return starting


async def test_the_time_that_a_pod_ran_unlimited_as_nobody_was_there_is_counted_and_told_once(starting):
    await starting.controller.on_synchronize([sandbox()])
    await starting.settle()
    assert starting.told.notices == [("shop/web-0", "BandwidthLimited")]
    for _ in range(2):
        starting.on_pods([api_pod(ingress="100M", status=STARTED)])
        await starting.settle()
    assert starting.told.notices == [("shop/web-0", "BandwidthLimited"), ("shop/web-0", "RanUnlimited")]
    assert unshaped_seconds(starting) == 30


async def test_a_pod_whose_node_was_started_again_is_not_counted_from_the_start_of_its_former_containers(starting):
    starting.netns_created_s[A] = starting.now_s - 5
    await starting.controller.on_synchronize([sandbox()])
    starting.on_pods([api_pod(ingress="100M", status=STARTED)])
    await starting.settle()
    assert ("shop/web-0", "RanUnlimited") in starting.told.notices
    assert unshaped_seconds(starting) == 5


async def test_a_pod_whose_containers_were_restarted_meanwhile_ran_unlimited_from_their_first_start(starting):
    crashed = {"terminated": {"startedAt": "2001-09-09T01:46:40Z"}}
    now = {"running": {"startedAt": "2001-09-09T01:47:05Z"}}
    status = {"containerStatuses": [{"state": now, "lastState": crashed, "restartCount": 1}]}
    await starting.controller.on_synchronize([sandbox()])
    starting.on_pods([api_pod(ingress="100M", status=status)])
    await starting.settle()
    assert ("shop/web-0", "RanUnlimited") in starting.told.notices
    assert unshaped_seconds(starting) == 30


@pytest.mark.parametrize("state", ["state", "lastState"])
async def test_a_pod_whose_only_container_could_not_be_started_did_not_run_without_its_limits(starting, state):
    failed = {"terminated": {"reason": "StartError", "startedAt": "1970-01-01T00:00:00Z"}}
    await starting.controller.on_synchronize([sandbox()])
    status = {"containerStatuses": [{"restartCount": 0, state: failed}]}
    starting.on_pods([api_pod(ingress="100M", status=status)])
    await starting.settle()
    assert starting.told.notices == [("shop/web-0", "BandwidthLimited")]
    assert unshaped_seconds(starting) == 0


async def test_a_pod_restarted_often_ran_unlimited_since_its_sandbox_was_there_at_most(starting):
    starting.netns_created_s[A] = starting.now_s - 12
    now, before = ({"running": {"startedAt": f"2001-09-09T01:47:0{second}Z"}} for second in (5, 2))
    status = {
        "startTime": "2001-09-09T01:40:00Z",
        "containerStatuses": [{"state": now, "lastState": before, "restartCount": 5}],
    }
    await starting.controller.on_synchronize([sandbox()])
    starting.on_pods([api_pod(ingress="100M", status=status)])
    await starting.settle()
    assert unshaped_seconds(starting) == 12


async def test_a_pod_limited_by_the_hook_or_annotated_later_was_never_late(bench):
    await bench.controller.on_synchronize([sandbox(ingress=None)])
    await bench.settle()
    await bench.controller.on_run(sandbox("s2", uid="u2", path=B))
    for uid in ("u1", "u2"):
        bench.on_pod_event("MODIFIED", api_pod(uid, ingress="100M", status=STARTED))
    await bench.settle()
    assert set(bench.kernel.held) == {("u1", A), ("u2", B)}
    assert unshaped_seconds(bench) == 0


@pytest.mark.parametrize(
    ("found", "unlimited_s"),
    [({}, 30), ({Key("u1", A): Limits()}, 30), ({Key("u1", A): None}, 0)],
    ids=["no filters", "no filter of the shaper", "unreadable"],
)
async def test_a_limit_that_is_in_the_map_alone_was_never_in_force(begin, found, unlimited_s):
    bench = Bench()
    figures = DirectionCounters(100_000_000, bytes=0, packets=0, drops=0, marks=0)
    bench.kernel.counters = lambda _owners=None: [PodCounters("u1", A, {Direction.INGRESS: figures})]
    bench.kernel.found = found
    await begin(bench)
    await bench.controller.on_synchronize([sandbox()])
    await bench.settle()
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}
    assert unshaped_seconds(bench) == unlimited_s


async def test_a_pod_that_was_annotated_later_than_it_began_did_not_run_without_its_limits(bench):
    await bench.controller.on_synchronize([sandbox(ingress=None)])
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}
    assert [reason for _, reason in bench.told.notices] == ["BandwidthLimited"]
    assert unshaped_seconds(bench) == 0


async def test_a_pod_annotated_again_much_later_did_not_run_without_its_limits(bench):
    bench.on_pods([api_pod(status=STARTED)])
    await bench.controller.on_synchronize([sandbox(ingress="100M")])  # so it was found late, and wants nothing
    await bench.settle()
    bench.now_s += 1000
    bench.on_pod_event("MODIFIED", api_pod(ingress="20M", status=STARTED))
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20)}
    assert unshaped_seconds(bench) == 0


async def test_a_pod_whose_hook_took_too_long_and_that_was_annotated_much_later_did_not_run_without_its_limits(bench):
    await bench.controller.on_run(sandbox(ingress=None))
    bench.controller.on_hook_timeout(sandbox(ingress=None))
    await bench.controller.housekeeping.collect_garbage()
    bench.on_pods([api_pod(status=STARTED)])
    await bench.settle()
    bench.now_s += 1000
    bench.on_pod_event("MODIFIED", api_pod(ingress="20M", status=STARTED))
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20)}
    assert unshaped_seconds(bench) == 0


async def test_a_pod_whose_hook_failed_or_took_too_long_ran_unlimited(bench):
    bench.now_s = STARTED_S + 1000  # its containers are those of a sandbox before this one
    bench.kernel.failing[A] = [ShapingError("no such module")] * 2
    await bench.controller.on_run(sandbox())
    async with bench.controller._kernel.lock():
        hook = asyncio.create_task(bench.controller.on_run(sandbox("s2", uid="u2", path=B)))
        await bench.settle()
        bench.controller.on_hook_timeout(sandbox("s2", uid="u2", path=B))
        bench.now_s += 30
    await hook
    await bench.settle()
    for uid in ("u1", "u2"):
        bench.on_pod_event("MODIFIED", api_pod(uid, ingress="100M", status=STARTED))
    await bench.settle()
    assert [reason for _, reason in bench.told.notices].count("RanUnlimited") == 2
    assert unshaped_seconds(bench) == 60


async def test_a_static_pod_ran_unlimited_since_its_sandbox_was_there(begin):
    bench = Bench()
    bench.netns_created_s[A] = bench.now_s - 12
    static = sandbox()
    static.annotations["kubernetes.io/config.source"] = "file"
    await begin(bench)
    await bench.controller.on_synchronize([static])
    bench.on_pods([])  # its mirror Pod has another uid
    await bench.settle()
    assert [reason for _, reason in bench.told.notices] == ["RanUnlimited", "BandwidthLimited"]
    bench.controller.enqueue("u1")
    await bench.settle()
    assert unshaped_seconds(bench) == 12


async def test_a_pod_that_was_limited_until_its_end_did_not_run_unlimited_as_its_network_could_not_be_taken_down(bench):
    """containerd tells of the end before it does that; where it fails, the list has the sandbox still."""
    await bench.controller.on_run(sandbox())
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    await bench.settle()
    bench.now_s += 30 * 86400
    await bench.controller.on_stop(sandbox())
    for _ in range(2):
        await bench.controller.on_synchronize([sandbox()])
        await bench.settle()
    assert bench.told.notices == [("shop/web-0", "BandwidthLimited")]
    assert bench.kernel.held == {}
    assert unshaped_seconds(bench) == 0


async def test_a_pod_whose_containers_have_ended_when_the_reconciler_starts_is_not_counted(starting):
    starting.now_s += 30 * 86400
    ended = api_pod(ingress="100M", status=ENDED)
    ended["metadata"]["deletionTimestamp"] = "2001-10-09T01:46:40Z"
    starting.on_pods([ended])
    await starting.controller.on_synchronize([sandbox()])
    await starting.settle()
    assert "RanUnlimited" not in [reason for _, reason in starting.told.notices]
    assert unshaped_seconds(starting) == 0


async def test_a_pod_that_started_and_ended_while_nobody_was_there_is_not_counted_as_the_docs_say(starting):
    """The runtime lists its sandbox without a netns, and the API server's list leaves finished Pods out."""
    starting.on_pods([])
    await starting.controller.on_synchronize([sandbox(path="")])
    await starting.settle()
    await starting.controller.housekeeping.collect_garbage()
    assert starting.told.notices == []
    assert unshaped_seconds(starting) == 0
    (row,) = [
        line for line in (DOCS / "reference.md").read_text().splitlines() if "`ipvlan_bandwidth_unshaped_seco" in line
    ]
    assert "ended before a reconciler was there is not counted" in row
    bad_days = (DOCS / "operations.md").read_text().split("## Bad days", 1)[1].split("\n## ", 1)[0]
    told = [line for line in bad_days.splitlines() if "this is counted" in line]
    assert len(told) == 3
    assert all("except those that end before" in line for line in told)


async def test_a_pod_that_a_list_leaves_out_ran_unlimited_all_the_while(bench):
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    await bench.controller.on_synchronize([])
    bench.now_s += 86400
    await bench.controller.on_stop(sandbox("s2", uid="u2", path=B))
    bench.now_s += 7
    await bench.controller.on_synchronize([sandbox()])
    await bench.settle()
    assert ("shop/web-0", "RanUnlimited") in bench.told.notices
    assert unshaped_seconds(bench) == 30 + 86400 + 7


async def test_a_pod_that_fails_long_after_the_runtime_waited_for_it_ran_unlimited_since_then(bench):
    bench.kernel.failing[A] = [ShapingError("no such module")]
    async with bench.controller._kernel.lock():
        hook = asyncio.create_task(bench.controller.on_run(sandbox()))
        await bench.settle()
        bench.now_s += 2
        bench.controller.on_hook_timeout(sandbox())
        bench.now_s += 60
    await hook
    bench.on_pods([api_pod(ingress="100M", status=STARTED)])
    await bench.settle()
    assert unshaped_seconds(bench) == 60
