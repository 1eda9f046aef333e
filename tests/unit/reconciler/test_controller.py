"""The controller, with a kernel that is only remembered; tests/kernel and tests/cluster have the real one."""

import asyncio
from concurrent.futures import Executor, Future

import pytest

from reconciler.controller import Controller
from reconciler.metrics import Metrics
from reconciler.nri.messages import PodSandbox
from reconciler.shaping import NetnsGoneError, Outcome, ShapingError
from webhook.contract import Limits, Quantity

A, B = "/run/netns/a", "/run/netns/b"
M20, M100 = Quantity(20_000_000), Quantity(100_000_000)


class Inline(Executor):
    """Runs at once, on the caller's thread."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - handed on
            future.set_exception(error)
        return future


class Kernel:
    """Remembers limits by (uid, netns); has `eth0` in every netns."""

    adopted = False

    def __init__(self):
        self.held: dict[tuple[str, str], Limits] = {}
        self.failing: dict[str, list[Exception]] = {}
        self.calls = []

    def shape(self, pod_uid, netns_path, limits):
        self.calls.append((pod_uid, netns_path, limits))
        if self.failing.get(netns_path):
            raise self.failing[netns_path].pop(0)
        key = (pod_uid, netns_path)
        changed = self.held.get(key, Limits()) != limits
        self.held[key] = limits
        return Outcome(steps=("write limits",) if changed else (), problems=(), interfaces=("eth0",))

    def release(self, pod_uid, netns_path):
        self.held.pop((pod_uid, netns_path), None)

    def collect(self, live):
        gone = [key for key in self.held if key not in live]
        for key in gone:
            del self.held[key]
        return len(gone)

    def counters(self):
        return []


class Told:
    def __init__(self):
        self.notices = []

    def tell(self, pod, notice):
        self.notices.append((str(pod), notice.reason))

    def forget(self, uid):
        self.notices.append((uid, "forgotten"))


class Deaf:
    def watch(self, netns_path):
        pass

    def unwatch(self, netns_path):
        pass


def sandbox(ident="s1", uid="u1", path=A, *, ingress="100M", managed=True):
    return PodSandbox(
        id=ident,
        name="web-0",
        uid=uid,
        namespace="shop",
        labels={"ipvlan-bandwidth.io/managed": "true"} if managed else {},
        annotations={"kubernetes.io/ingress-bandwidth": ingress} if ingress else {},
        netns_path=path,
        pid=1,
    )


STARTED = {"containerStatuses": [{"state": {"running": {"startedAt": "2001-09-09T01:46:40Z"}}}]}


def api_pod(uid="u1", status=None, **annotations):
    return {
        "status": status or {},
        "metadata": {
            "uid": uid,
            "name": "web-0",
            "namespace": "shop",
            "labels": {"ipvlan-bandwidth.io/managed": "true"},
            "annotations": {f"kubernetes.io/{key}-bandwidth": value for key, value in annotations.items()},
        },
    }


class Bench:
    """A controller at work on a Kernel; `settle` lets everything that is due happen."""

    def __init__(self, *, start_failures=()):
        self.kernel, self.told, self.slept, self.metrics = Kernel(), Told(), [], Metrics()
        self.start_failures = list(start_failures)
        self.started_with = None
        self.controller = Controller(
            self._start,
            monitor=Deaf(),
            events=self.told,
            metrics=self.metrics,
            executor=Inline(),
            sleep=self._sleep,
            monotonic=lambda: 0.0,
            now=lambda: 1_000_000_030.0,
        )

    def _start(self, keys):
        if self.start_failures:
            raise self.start_failures.pop(0)
        self.started_with = list(keys)
        return self.kernel

    async def _sleep(self, seconds):
        self.slept.append(seconds)
        await asyncio.sleep(0)

    async def settle(self):
        for _ in range(60):
            await asyncio.sleep(0)


@pytest.fixture
async def bench():
    bench = Bench()
    task = asyncio.create_task(bench.controller.run())
    await bench.controller.on_synchronize([])
    await bench.settle()
    yield bench
    task.cancel()


async def test_a_starting_pod_is_limited_when_the_hook_returns(bench):
    await bench.controller.on_run(sandbox())
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}
    assert bench.told.notices == [("shop/web-0", "BandwidthLimited")]


async def test_a_pod_on_the_hosts_network_is_left_alone(bench):
    await bench.controller.on_run(sandbox(path=""))
    assert bench.kernel.calls == []


async def test_an_unlimited_pod_costs_nothing(bench):
    await bench.controller.on_run(sandbox(ingress=None))
    assert bench.kernel.calls == []


async def test_the_kernel_follows_the_annotation_while_the_pod_runs(bench):
    await bench.controller.on_run(sandbox())
    bench.controller.on_pod_event("MODIFIED", api_pod(ingress="20M"))
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20)}
    bench.controller.on_pod_event("MODIFIED", api_pod())
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits()}
    assert [reason for _, reason in bench.told.notices] == [
        "BandwidthLimited",
        "BandwidthChanged",
        "BandwidthRemoved",
    ]


async def test_an_event_that_changes_nothing_that_matters_is_not_looked_at(bench):
    await bench.controller.on_run(sandbox())
    bench.controller.on_pod_event("MODIFIED", api_pod(ingress="100M"))
    await bench.settle()
    calls = len(bench.kernel.calls)
    bench.controller.on_pod_event("MODIFIED", api_pod(ingress="100M"))
    bench.controller.on_pod_event("MODIFIED", {"kind": "nonsense"})
    await bench.settle()
    assert len(bench.kernel.calls) == calls


async def test_what_the_watch_knows_is_newer_than_the_runtimes_word(bench):
    bench.controller.on_pods([api_pod(ingress="20M")])
    await bench.controller.on_run(sandbox(ingress="100M"))
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20)}


async def test_a_list_finds_what_was_missed(bench):
    bench.controller.on_pods([api_pod(ingress="100M")])
    await bench.controller.on_run(sandbox())
    bench.controller.on_pods([api_pod(ingress="20M")])
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20)}


async def test_a_recreated_sandbox_is_limited_again_and_the_old_one_let_go(bench):
    await bench.controller.on_run(sandbox())
    await bench.controller.on_run(sandbox("s2", path=B))
    await bench.controller.on_stop(sandbox())
    await bench.controller.on_remove(sandbox())
    assert bench.kernel.held == {("u1", B): Limits(ingress=M100)}


async def test_sandboxes_that_a_replay_no_longer_has_are_let_go(bench):
    await bench.controller.on_run(sandbox())
    await bench.controller.on_synchronize([])
    await bench.settle()
    assert bench.kernel.held == {}


async def test_a_replay_looks_at_every_pod(bench):
    await bench.controller.on_synchronize([sandbox(), sandbox("s2", uid="u2", path=B)])
    await bench.settle()
    assert set(bench.kernel.held) == {("u1", A), ("u2", B)}


def unshaped_seconds(bench):
    return bench.metrics.registry.get_sample_value("ipvlan_bandwidth_unshaped_seconds_total")


async def test_the_time_that_a_pod_ran_unlimited_as_nobody_was_there_is_counted_and_told_once(bench):
    await bench.controller.on_synchronize([sandbox()])
    await bench.settle()
    assert bench.told.notices == [("shop/web-0", "BandwidthLimited")]
    for _ in range(2):
        bench.controller.on_pods([api_pod(ingress="100M", status=STARTED)])
        await bench.settle()
    assert bench.told.notices == [("shop/web-0", "BandwidthLimited"), ("shop/web-0", "RanUnlimited")]
    assert unshaped_seconds(bench) == 30


async def test_a_pod_limited_by_the_hook_or_annotated_later_was_never_late(bench):
    await bench.controller.on_synchronize([sandbox(ingress=None)])
    await bench.settle()
    await bench.controller.on_run(sandbox("s2", uid="u2", path=B))
    for uid in ("u1", "u2"):
        bench.controller.on_pod_event("MODIFIED", api_pod(uid, ingress="100M", status=STARTED))
    await bench.settle()
    assert set(bench.kernel.held) == {("u1", A), ("u2", B)}
    assert unshaped_seconds(bench) == 0


async def test_a_link_that_appears_later_is_looked_at_and_a_flood_of_changes_only_once(bench):
    await bench.controller.on_run(sandbox())
    calls = len(bench.kernel.calls)
    for _ in range(100):
        bench.controller.on_netns_changed([A, "/run/netns/unknown"])
    await bench.settle()
    assert len(bench.kernel.calls) == calls + 1
    bench.controller.on_overrun()
    await bench.settle()
    assert len(bench.kernel.calls) == calls + 2


async def test_a_failure_is_told_once_and_tried_again_until_it_works(bench):
    bench.kernel.failing[A] = [ShapingError("no such module"), ShapingError("no such module")]
    await bench.controller.on_run(sandbox())
    assert bench.controller.wanted() == (1, 0, 1)
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}
    assert [reason for _, reason in bench.told.notices] == ["BandwidthFailed", "BandwidthLimited"]
    assert bench.slept[:2] == [1.0, 2.0]
    assert bench.controller.wanted() == (1, 1, 0)


async def test_a_netns_that_went_meanwhile_is_no_failure(bench):
    bench.kernel.failing[A] = [NetnsGoneError("gone")]
    await bench.controller.on_run(sandbox())
    assert bench.told.notices == []


async def test_a_pod_never_admitted_is_told_of_and_not_limited(bench):
    await bench.controller.on_run(sandbox(managed=False))
    assert bench.kernel.held == {("u1", A): Limits()}
    assert bench.told.notices == [("shop/web-0", "NotManaged")]


async def test_a_deleted_pod_is_forgotten_by_the_events(bench):
    bench.controller.on_pod_event("ADDED", api_pod(ingress="20M"))
    bench.controller.on_pod_event("DELETED", api_pod(ingress="20M"))
    assert bench.told.notices == [("u1", "forgotten")]


async def test_what_vanished_without_a_word_is_collected(bench):
    await bench.controller.on_run(sandbox())
    bench.kernel.held[("u9", B)] = Limits(ingress=M20)
    task = asyncio.create_task(bench.controller.run_collector())
    await bench.settle()
    task.cancel()
    assert set(bench.kernel.held) == {("u1", A)}


async def test_a_kernel_that_cannot_shape_yet_is_tried_again_and_pods_wait_for_it():
    bench = Bench(start_failures=[ShapingError("no sch_fq")])
    assert not bench.controller.ready
    assert await bench.controller.counters() == []
    run = asyncio.create_task(bench.controller.run())
    await bench.controller.on_synchronize([sandbox()])
    await bench.settle()
    assert bench.controller.ready
    assert bench.started_with == [("u1", A)]
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}
    run.cancel()
