"""Pods that came and went are not remembered by anybody."""

import asyncio

from reconciler.bypass import Sample, Traffic
from reconciler.counters import DirectionCounters, PodCounters
from reconciler.kernel.errors import NetnsGoneError, ShapingError
from tests.unit.reconciler.controller_bench import A, Bench, api_pod, sandbox
from tests.unit.reconciler.memory import remembered
from tests.unit.reconciler.test_events import Api, make
from webhook.common.contract import Direction

PODS = 1000
A_POD = r"(pod-|sandbox-|/run/netns/)\d+"
FIGURES = dict.fromkeys(Direction, DirectionCounters(1, 2, 3, 4, 5))


class Node:
    """All that remembers Pods, at work."""

    def __init__(self):
        self.api = Api()
        self.events, _, _ = make(self.api)
        self.bench = Bench(told=self.events)
        self.controller, self.kernel = self.bench.controller, self.bench.kernel
        self.resync = self.controller.resync
        self.kernel.sample = self._sample
        self.kernel.slot_owners = lambda: list(self.kernel.held)
        self.kernel.counters = lambda owners=(): [PodCounters(uid, path, FIGURES) for uid, path in owners]
        self._sent = 0

    def _sample(self, *_):
        """Each Pod sends past its limit all the time."""
        self._sent += 1
        sent = Traffic(1000 * self._sent, self._sent)
        return Sample((1, 1), sent, sent, 1514)

    async def begin(self):
        audits = self.controller.housekeeping.run_audits()
        forever = (self.controller.run(), self.events.run(), self.resync.run(), audits)
        self.work = [asyncio.create_task(each) for each in forever]
        await self.controller.on_synchronize([])
        self.controller.on_pods([])
        await self.bench.settle()

    async def scrape(self):
        self.bench.metrics.pods.show(await self.controller.housekeeping.counters(), self.resync.unshaped())

    def holders(self):
        """What remembers any Pod: the names of what holds them."""
        roots = (self.controller, self.events, self.resync, self.bench.metrics, self.bench.monitor.watched)
        return {way for root in roots for way in remembered(root, A_POD)}

    async def end(self):
        for task in self.work:
            task.cancel()
        await asyncio.gather(*self.work, return_exceptions=True)


def pod_of(number, **annotations):
    return sandbox(f"sandbox-{number}", uid=f"pod-{number}", path=f"/run/netns/{number}", **annotations)


async def test_what_is_there_is_remembered_in_all_the_places_that_the_next_test_finds_empty():
    node = Node()
    await node.begin()
    node.bench.gate = asyncio.Event()  # whoever sleeps does so from now on
    node.kernel.failing["/run/netns/1"] = [ShapingError("no")] * 9
    for number in range(4):
        node.bench.on_pod_event("ADDED", api_pod(f"pod-{number}", ingress="20M", egress="1M"))
        await node.controller.on_run(pod_of(number, egress="1M"))
        node.controller.on_netns_changed([f"/run/netns/{number}"])
    for _ in range(4):
        await node.resync.step()
    await node.resync.step()
    node.controller.on_hook_timeout(pod_of(2))
    await node.scrape()
    node.controller.enqueue("pod-3")
    held = node.holders()
    await node.end()
    places = (
        *("Sandboxes._by_id", "NodeState._views", "NodeState._states", "NodeState._last_good"),
        *(
            "RanUnlimited._found",
            "WorkQueue._priorities",
            "Failures._retrying",
            "Debouncer._waiting",
            "Backoff._changes",
        ),
        *(
            "NetnsSubscriptions._subscribed",
            "BackgroundTasks._tasks",
            "Events._buckets",
            "Resync._samples",
            "Resync._unshaped",
        ),
        *("Resync._round", "PodMetrics._rows", "set[]"),
    )
    assert [place for place in places if not any(place.rpartition(".")[2] in way for way in held)] == []


async def comes_and_goes(node, number):
    """One Pod in turn, each in another way."""
    pod, uid, path = pod_of(number, egress="1M"), f"pod-{number}", f"/run/netns/{number}"
    told = [("ADDED", api_pod(uid, ingress="20M", egress="1M")), ("MODIFIED", api_pod(uid, ingress="1M"))]
    if number % 3 == 0:
        node.kernel.failing[path] = [(ShapingError, NetnsGoneError)[number % 2]("no")]
    if number % 5:
        node.bench.on_pod_event(*told.pop(0))
    hook = asyncio.create_task(node.controller.on_run(pod))
    if number % 11 == 0:
        await asyncio.sleep(0)
        node.controller.on_hook_timeout(pod)
    await hook
    if number % 4 == 0:
        await node.resync.step()
        await node.resync.step()
    for event in told:
        node.bench.on_pod_event(*event)
    node.controller.on_netns_changed([path])
    if number % 2:
        node.bench.on_pod_event("DELETED", api_pod(uid))
    if number % 7:
        await node.controller.on_stop(pod)
        await node.controller.on_remove(pod)
    else:
        node.kernel.gone.add(path)
    node.bench.on_pod_event("DELETED", api_pod(uid))


async def test_a_thousand_pods_in_turn_leave_nothing_in_memory_however_they_come_and_go():
    node = Node()
    await node.begin()
    for number in range(PODS):
        await comes_and_goes(node, number)
        if number % 100 == 0:
            await node.scrape()
    assert len(node.api.posted) > PODS
    await node.controller.housekeeping.collect_garbage()
    node.controller.housekeeping.check_unreported()
    node.bench.on_pod_event("ADDED", api_pod("the last one", ingress="20M"))
    await node.controller.on_run(sandbox("the last one", uid="the last one"))  # which a loop may still have at hand
    for _ in range(100):
        await node.bench.settle()
    await node.scrape()
    assert node.holders() == set()
    assert len(node.controller._background._tasks) == 1, "the loop that looks at Pods"
    assert list(node.kernel.held) == [("the last one", A)]
    assert node.controller.pod_counts() == (1, 1, 0, 0, 0)
    await node.end()
