"""The controller, with a kernel that is only remembered; tests/kernel and tests/cluster have the real one."""

import asyncio
import dataclasses
from concurrent.futures import Executor, Future

import pytest

from reconciler.controller import Controller
from reconciler.latecomers import Latecomers
from reconciler.metrics import Metrics
from reconciler.model import Problem, ProblemKind
from reconciler.nri.messages import PodSandbox
from reconciler.shaping import DirectionCounters, NetnsGoneError, Outcome, PodCounters, ShapingError
from webhook.contract import Direction, Limits, Quantity

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
        self.found = {}
        self.gone = set()
        self.held: dict[tuple[str, str], Limits] = {}
        self.failing: dict[str, list[Exception]] = {}
        self.interfaces = ("eth0",)
        self.calls = []
        self.altered = []
        self.problems = ()
        self.audit_failures = []

    def shape(self, pod_uid, netns_path, limits):
        self.calls.append((pod_uid, netns_path, limits))
        if self.failing.get(netns_path):
            raise self.failing[netns_path].pop(0)
        key = (pod_uid, netns_path)
        before = self.held.get(key, Limits())
        self.held[key] = limits
        return Outcome(
            steps=("write limits",) if before != limits else (),
            problems=self.problems,
            interfaces=self.interfaces,
        )

    def release(self, pod_uid, netns_path):
        self.held.pop((pod_uid, netns_path), None)

    def collect(self, live):
        gone = [key for key in self.held if key not in live]
        for key in gone:
            del self.held[key]
        return len(gone)

    def audit(self):
        if self.audit_failures:
            raise self.audit_failures.pop(0)
        uids, self.altered = self.altered, []
        return uids

    def vanished(self, keys):
        return [key for key in keys if key[1] in self.gone]

    def tenants(self):
        return []

    def counters(self, _tenants=None):
        return []

    def sample(self, pod_uid, netns_path, interfaces):
        if self.failing.get(netns_path):
            raise self.failing[netns_path].pop(0)
        return pod_uid, netns_path, interfaces


class Told:
    def __init__(self):
        self.notices = []

    def tell(self, pod, notice):
        self.notices.append((str(pod), notice.reason))

    def tell_node(self, notice):
        self.notices.append(("the node", notice.reason))

    def forget(self, uid):
        self.notices.append((uid, "forgotten"))


class Deaf:
    def watch(self, netns_path):
        pass

    def unwatch(self, netns_path):
        pass


def raised(error):
    raise error


def sandbox(ident="s1", uid="u1", path=A, *, ingress="100M", egress=None, managed=True):
    return PodSandbox(
        id=ident,
        name="web-0",
        uid=uid,
        namespace="shop",
        labels={"ipvlan-bandwidth.io/managed": "true"} if managed else {},
        annotations={
            f"kubernetes.io/{direction}-bandwidth": text
            for direction, text in (("ingress", ingress), ("egress", egress))
            if text
        },
        netns_path=path,
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
        self.metrics = Metrics()
        self.gate = None
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
        if self.gate:
            await self.gate.wait()

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
    for _ in range(100):
        bench.controller.on_overrun()
    await bench.settle()
    assert len(bench.kernel.calls) == calls + 2
    assert bench.slept == [0.1, 0.1]


async def test_a_pod_that_keeps_changing_its_network_is_looked_at_each_time_but_ever_later(bench):
    await bench.controller.on_run(sandbox())
    calls = len(bench.kernel.calls)
    for _ in range(6):
        bench.controller.on_netns_changed([A])
        await bench.settle()
    assert len(bench.kernel.calls) == calls + 6
    assert bench.slept == [0.1, 0.1, 0.2, 0.4, 0.8, 0.8]


async def test_a_pod_whose_limits_somebody_wrote_into_the_map_is_looked_at(bench):
    await bench.controller.on_run(sandbox())
    await bench.controller.on_run(sandbox("s2", uid="u2", path=B))
    calls = len(bench.kernel.calls)
    bench.kernel.altered = ["u2"]
    bench.kernel.audit_failures = [ShapingError("no memory")]
    for _ in range(2):
        await bench.controller.audit()
    await bench.settle()
    assert [call[0] for call in bench.kernel.calls[calls:]] == ["u2"]


async def test_a_failure_is_told_once_and_tried_again_until_it_works(bench):
    bench.kernel.failing[A] = [ShapingError("no such module"), ShapingError("no such module")]
    await bench.controller.on_run(sandbox())
    assert bench.controller.wanted() == (1, 0, 1)
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}
    assert [reason for _, reason in bench.told.notices] == ["BandwidthFailed", "BandwidthLimited"]
    assert bench.slept[:2] == [1.0, 2.0]
    assert bench.controller.wanted() == (1, 1, 0)


async def test_a_pod_that_changes_all_the_time_while_it_fails_is_not_tried_again_more_often():
    bench = Bench()
    bench.kernel.failing[A] = [ShapingError("no such module")] * 5
    await bench.controller.on_synchronize([])
    await bench.settle()
    waiting = []

    async def wait_for_ever(seconds):
        waiting.append(seconds)
        await asyncio.Event().wait()

    bench.controller._sleep = wait_for_ever
    for _ in range(4):
        await bench.controller.on_run(sandbox())
        await bench.settle()
    assert waiting == [1.0]


async def test_an_interface_that_is_gone_for_a_moment_costs_no_last_good_limit(bench):
    await bench.controller.on_run(sandbox())
    bench.kernel.interfaces = ()
    bench.controller.on_netns_changed([A])
    await bench.settle()
    bench.kernel.interfaces = ("eth0",)
    bench.controller.on_pod_event("MODIFIED", api_pod(ingress="100m"))
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}
    assert bench.told.notices[-1] == ("shop/web-0", "InvalidBandwidth")


async def test_a_visit_reads_what_went_past_an_egress_limit_and_a_thorough_one_looks_at_the_pod(bench):
    await bench.controller.on_run(sandbox(egress="20M"))
    await bench.controller.on_run(sandbox("s2", uid="u2", path=B))
    limited, only_ingress = bench.controller.limited()
    calls = len(bench.kernel.calls)
    assert await bench.controller.visit(limited, thorough=False) == ("u1", A, ("eth0",))
    assert await bench.controller.visit(only_ingress, thorough=False) is None
    assert len(bench.kernel.calls) == calls
    assert await bench.controller.visit(limited, thorough=True) == ("u1", A, ("eth0",))
    assert len(bench.kernel.calls) == calls + 1
    bench.kernel.failing[A] = [NetnsGoneError("gone")]
    assert await bench.controller.visit(limited, thorough=False) is None
    bench.kernel.problems = (Problem(ProblemKind.CONFLICT, "a tbf"),)
    assert await bench.controller.visit(limited, thorough=True) is None


async def test_a_netns_that_went_meanwhile_is_no_failure(bench):
    bench.kernel.failing[A] = [NetnsGoneError("gone")]
    await bench.controller.on_run(sandbox())
    assert bench.told.notices == []


async def test_a_pod_never_admitted_is_told_of_and_not_limited(bench):
    await bench.controller.on_run(sandbox(managed=False))
    assert bench.kernel.held == {("u1", A): Limits()}
    assert bench.told.notices == [("shop/web-0", "NotManaged")]


async def test_a_pod_that_the_api_server_no_longer_has_is_as_it_was_last_until_its_sandbox_ends(bench):
    await bench.controller.on_run(sandbox())
    await bench.controller.on_run(sandbox("s2", uid="u2", path=B))
    bench.controller.on_pods([api_pod("u1", ingress="20M"), api_pod("u2", ingress="20M")])
    await bench.settle()
    bench.controller.on_pods([api_pod("u1", ingress="20M")])
    bench.controller.on_pod_event("DELETED", api_pod("u1", ingress="20M"))
    for uid in ("u1", "u2"):
        bench.controller.look_at(uid)
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20), ("u2", B): Limits(ingress=M20)}
    await bench.controller.on_stop(sandbox())
    await bench.controller.on_stop(sandbox("s2", uid="u2", path=B))
    assert bench.told.notices[-2:] == [("u1", "forgotten"), ("u2", "forgotten")]


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


async def test_a_sandbox_whose_netns_is_gone_is_forgotten_though_the_runtime_says_nothing(bench):
    await bench.controller.on_run(sandbox())
    bench.kernel.gone.add(A)
    task = asyncio.create_task(bench.controller.run_collector())
    await bench.settle()
    task.cancel()
    assert bench.kernel.held == {}
    assert bench.controller.wanted() == (0, 0, 0)


async def test_a_collector_that_cannot_tell_what_is_gone_frees_nothing_and_goes_on(bench):
    await bench.controller.on_run(sandbox())
    answers = [ShapingError("too many open files"), []]
    bench.kernel.vanished = lambda _: answer if isinstance(answer := answers.pop(0), list) else raised(answer)
    bench.kernel.held[("u9", B)] = Limits(ingress=M20)
    task = asyncio.create_task(bench.controller.run_collector())
    await bench.settle()
    task.cancel()
    assert answers == []
    assert set(bench.kernel.held) == {("u1", A)}


async def test_a_sandbox_let_go_while_its_look_waited_is_not_shaped_again(bench):
    await bench.controller.on_run(sandbox())
    async with bench.controller._kernel:
        bench.controller.look_at("u1")
        await bench.settle()
        stopping = asyncio.create_task(bench.controller.on_stop(sandbox()))
        await bench.settle()
    await stopping
    await bench.settle()
    assert bench.kernel.held == {}


@pytest.mark.parametrize("limits", [Limits(), Limits(ingress=M20)])
async def test_what_is_left_of_a_limit_that_nobody_wants_any_more_is_taken_away_after_a_restart(limits):
    bench = Bench()
    bench.kernel.found = {("u1", A): limits}
    bench.kernel.held = {("u1", A): limits}
    run = asyncio.create_task(bench.controller.run())
    await bench.controller.on_synchronize([sandbox(ingress=None), sandbox("s2", uid="u2", path=B, ingress=None)])
    await bench.settle()
    # A limit may have been added while the Pod ran, which the API server knows and the runtime does not.
    assert bench.kernel.held == {("u1", A): limits}
    bench.controller.on_pods([api_pod("u1"), api_pod("u2")])
    await bench.settle()
    assert bench.kernel.calls[-1] == ("u1", A, Limits())
    assert {uid for uid, _, _ in bench.kernel.calls} == {"u1"}
    run.cancel()


@pytest.mark.parametrize("by_an_older_program", [True, False])
async def test_limits_changed_while_the_pod_ran_outlast_a_restart_while_the_api_server_is_away(by_an_older_program):
    bench = Bench()
    bench.kernel.held = {("u1", A): Limits(egress=M20)}
    if by_an_older_program:
        bench.kernel.found = bench.kernel.held
    else:
        figures = DirectionCounters(20_000_000, bytes=0, packets=0, drops=0, marks=0)
        bench.kernel.counters = lambda _tenants=None: [
            PodCounters("u1", A, {Direction.EGRESS: figures}),
            PodCounters("u2", None, {Direction.EGRESS: figures}),
        ]
    run = asyncio.create_task(bench.controller.run())
    for _ in range(2):
        await bench.controller.on_synchronize([sandbox(ingress="100M")])
        await bench.settle()
        assert bench.kernel.held == {("u1", A): Limits(egress=M20)}
    assert bench.told.notices == []
    bench.controller.on_pods([api_pod(ingress="20M")])
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20)}
    assert bench.told.notices == [("shop/web-0", "BandwidthChanged")]
    run.cancel()


async def test_the_last_good_limit_of_an_older_program_stays_when_the_annotation_turned_bad():
    bench = Bench()
    bench.kernel.found = {("u1", A): Limits(ingress=M20)}
    run = asyncio.create_task(bench.controller.run())
    await bench.controller.on_synchronize([sandbox(ingress="100m")])
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20)}
    run.cancel()


async def test_a_thousand_pods_in_turn_leave_nothing_in_memory_however_they_come_and_go(bench):
    for number in range(1000):
        uid, path = f"u{number}", f"/run/netns/{number}"
        pod = sandbox(f"s{number}", uid=uid, path=path)
        told = [("ADDED", api_pod(uid, ingress="20M")), ("MODIFIED", api_pod(uid, ingress="1M"))]
        if number % 3 == 0:
            bench.kernel.failing[path] = [(ShapingError, NetnsGoneError)[number % 2]("no")]
        if number % 5:
            bench.controller.on_pod_event(*told.pop(0))
        await bench.controller.on_run(pod)
        for event in told:
            bench.controller.on_pod_event(*event)
        bench.controller.on_netns_changed([path])
        if number % 2:
            bench.controller.on_pod_event("DELETED", api_pod(uid))
        if number % 7:
            await bench.controller.on_stop(pod)
            await bench.controller.on_remove(pod)
        else:
            bench.kernel.gone.add(path)
        bench.controller.on_pod_event("DELETED", api_pod(uid))
    collector = asyncio.create_task(bench.controller.run_collector())
    for _ in range(100):
        await bench.settle()
    collector.cancel()
    await bench.settle()
    known = bench.controller._known
    kept = vars(bench.controller) | {field.name: getattr(known, field.name) for field in dataclasses.fields(known)}
    held = {name: value for name, value in kept.items() if isinstance(value, dict | set) and value}
    assert held.keys() <= {"_background"}
    assert known.latecomers == Latecomers()
    assert bench.kernel.held == {}
    assert bench.controller.wanted() == (0, 0, 0)


async def test_replays_one_after_the_other_as_of_a_runtime_that_dies_again_and_again_cost_one_look(bench):
    pods = [sandbox(f"s{number}", uid=f"u{number}", path=f"/run/netns/{number}") for number in range(250)]
    await bench.controller.on_synchronize(pods)
    for _ in range(20):
        await bench.controller.on_synchronize(pods)
    for _ in range(100):
        await bench.settle()
    assert len(bench.kernel.held) == len(pods)
    assert len(bench.kernel.calls) <= len(pods) + 1


async def test_a_pod_that_starts_while_many_are_counted_waits_for_a_few_of_them(bench):
    keys = [(f"u{number}", f"/run/netns/{number}") for number in range(100)]
    batches, hooks = [], []

    def counters(tenants):
        if not hooks:
            hooks.append(asyncio.create_task(bench.controller.on_run(sandbox("late", uid="late", path=A))))
        batches.append((len(tenants), ("late", A) in bench.kernel.held))
        return [PodCounters(uid, path, {}) for uid, path in tenants]

    for uid, path in keys:
        await bench.controller.on_run(sandbox(uid, uid=uid, path=path))
    bench.kernel.tenants, bench.kernel.counters = lambda: keys, counters
    assert len(await bench.controller.counters()) == 100
    assert [size for size, _ in batches] == [32, 32, 32, 4]
    assert batches[1][1] or batches[2][1], "it was limited in between"


async def test_a_pod_that_starts_while_the_program_loads_waits_for_it_and_others_do_not():
    bench = Bench()
    run = asyncio.create_task(bench.controller.run())
    hook = asyncio.create_task(bench.controller.on_run(sandbox()))
    stopped = asyncio.create_task(bench.controller.on_run(sandbox("s2", uid="u2", path=B)))
    await bench.settle()
    await bench.controller.on_run(sandbox("s3", uid="u3", path="/run/netns/c", ingress=None))
    await bench.controller.on_stop(sandbox("s2", uid="u2", path=B))
    assert not hook.done()
    assert bench.kernel.held == {}
    await bench.controller.on_synchronize([sandbox()])
    await asyncio.gather(hook, stopped)
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}
    run.cancel()


async def test_no_pod_waits_for_a_program_that_cannot_be_loaded_and_each_is_limited_and_told_when_it_can():
    bench = Bench(start_failures=[ShapingError("no sch_fq")])
    loaded = bench.gate = asyncio.Event()
    run = asyncio.create_task(bench.controller.run())
    await bench.controller.on_synchronize([])
    await bench.settle()
    for _ in range(2):
        await bench.controller.on_run(sandbox())
    await bench.controller.on_run(sandbox("s2", uid="u2", path=B))
    await bench.controller.on_stop(sandbox("s2", uid="u2", path=B))
    assert bench.kernel.held == {}
    assert bench.controller.wanted() == (1, 0, 1)
    loaded.set()
    await bench.settle()
    bench.controller.on_pods([api_pod(ingress="100M", status=STARTED)])
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}
    assert [reason for who, reason in bench.told.notices if who == "shop/web-0"] == [
        "BandwidthFailed",
        "BandwidthFailed",
        "BandwidthLimited",
        "RanUnlimited",
    ]
    assert unshaped_seconds(bench) == 30
    run.cancel()


async def test_a_pod_whose_hook_failed_or_took_too_long_ran_unlimited(bench):
    bench.kernel.failing[A] = [ShapingError("no such module")]
    await bench.controller.on_run(sandbox())
    async with bench.controller._kernel:
        hook = asyncio.create_task(bench.controller.on_run(sandbox("s2", uid="u2", path=B)))
        await bench.settle()
        bench.controller.on_late(sandbox("s2", uid="u2", path=B))
    await hook
    await bench.settle()
    for uid in ("u1", "u2"):
        bench.controller.on_pod_event("MODIFIED", api_pod(uid, ingress="100M", status=STARTED))
    await bench.settle()
    assert [reason for _, reason in bench.told.notices].count("RanUnlimited") == 2
    assert unshaped_seconds(bench) == 60


async def test_a_kernel_that_cannot_shape_yet_is_tried_again_and_pods_wait_for_it():
    bench = Bench(start_failures=[ShapingError("no sch_fq"), ShapingError("no sch_fq")])
    assert not bench.controller.ready
    assert await bench.controller.counters() == []
    assert bench.controller.trouble is None
    run = asyncio.create_task(bench.controller.run())
    await bench.controller.on_synchronize([sandbox()])
    await bench.settle()
    assert bench.controller.ready
    assert bench.controller.trouble is None
    assert bench.told.notices == [("the node", "CannotShape"), ("shop/web-0", "BandwidthLimited")]
    assert bench.started_with == [("u1", A)]
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}
    run.cancel()
