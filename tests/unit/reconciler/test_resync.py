"""The resync goes round the limited Pods, and tells what they send past their limits."""

import pytest

from reconciler.bypass import Sample, Traffic
from reconciler.pods import PodView
from reconciler.report import Applied
from reconciler.resync import PERIOD_S, Resync
from reconciler.sandboxes import Sandbox
from tests.unit.reconciler.controller_bench import FakeEventRecorder
from webhook.common.contract import Limits, Quantity


def sandbox(name):
    return Sandbox(f"sandbox of {name}", PodView(f"uid of {name}", "shop", name), f"/run/netns/{name}")


class ResyncTarget:
    """Pods with limits, each with the samples it gives in turn: what Resync works on, in one."""

    def __init__(self, **samples):
        self.samples = {name: list(each) for name, each in samples.items()}
        self.visits = []
        self._reconciled = None

    def limited(self):
        return [sandbox(name) for name in self.samples]

    def view(self, sandbox):
        return sandbox.pod

    def applied(self, _sandbox):
        return Applied(Limits(egress=Quantity(1000)), interfaces=("eth0",))

    async def shaper(self):
        return self

    async def run(self, call, *args):
        return call(*args)

    async def reconcile(self, sandbox):
        self._reconciled = sandbox.pod.uid

    def sample(self, pod_uid, netns_path, _interfaces):
        name = netns_path.removeprefix("/run/netns/")
        self.visits.append(name.upper() if self._reconciled == pod_uid else name)
        self._reconciled = None
        held = self.samples[name]
        return held.pop(0) if held else None


def seen(packets, epoch=0):
    traffic = Traffic(packets * 1000, packets)
    return Sample((1, epoch, frozenset({2})), traffic, traffic, 1514)


async def no_sleep(_):
    pass


def resync(visited, sleep=no_sleep):
    told = FakeEventRecorder()
    made = Resync(visited, loader=visited, kernel=visited, reconcile=visited.reconcile, events=told, sleep=sleep)
    return made, told


async def test_pods_are_visited_in_turn_and_those_that_come_or_go_are_minded():
    visited = ResyncTarget(a=[], b=[], c=[])
    going, _ = resync(visited)
    for _ in range(4):
        await going.step()
    del visited.samples["b"]
    visited.samples["d"] = []
    for _ in range(4):
        await going.step()
    assert visited.visits == ["a", "b", "c", "a", "c", "a", "c", "d"]


async def test_every_fourth_round_is_full():
    visited = ResyncTarget(a=[], b=[])
    going, _ = resync(visited)
    for _ in range(10):
        await going.step()
    assert visited.visits == ["a", "b", "a", "b", "a", "b", "A", "B", "a", "b"]


async def test_nobody_to_visit_is_fine():
    going, told = resync(ResyncTarget())
    await going.step()
    assert (going.unshaped(), told.notices) == ([], [])


async def test_what_a_pod_sends_past_its_limit_is_summed_up_and_told_with_the_remedy():
    going, told = resync(ResyncTarget(a=[seen(5), seen(7), seen(7), seen(7), seen(10)]))
    for _ in range(4):
        await going.step()
    assert [(pod.name, traffic) for pod, traffic in going.unshaped()] == [("a", Traffic(5000, 5))]
    assert told.notices == [("shop/a", "UnshapedTraffic")] * 2
    assert "at least 2 packets (2000 bytes)" in told.messages[0]
    assert "NET_RAW" in told.messages[0]


async def test_a_pod_that_seems_to_send_past_its_limit_is_looked_at_before_it_is_told():
    visited = ResyncTarget(a=[seen(5), seen(7), seen(7, epoch=1), seen(7, epoch=1)])
    going, told = resync(visited)
    for _ in range(3):
        await going.step()
    assert visited.visits == ["a", "a", "A", "a"]
    assert told.notices == [], "its filter was gone, and nobody had told"


async def test_what_was_sent_while_nothing_could_be_told_or_the_shaping_changed_is_not_counted():
    going, told = resync(ResyncTarget(a=[seen(5), None, seen(9), seen(20, epoch=1), seen(20, epoch=1)]))
    for _ in range(5):
        await going.step()
    assert told.notices == []


async def test_a_pod_that_is_gone_is_forgotten():
    visited = ResyncTarget(a=[seen(5), seen(7)], b=[])
    going, _ = resync(visited)
    for _ in range(3):
        await going.step()
    del visited.samples["a"]
    await going.step()
    visited.samples["a"] = []
    assert [traffic for _, traffic in going.unshaped()] == [Traffic(), Traffic()]


async def test_it_rests_between_visits():
    rests = []

    class EnoughError(Exception):
        pass

    async def sleep(seconds):
        rests.append(seconds)
        if len(rests) == 3:
            raise EnoughError

    visited = ResyncTarget(a=[])
    going, _ = resync(visited, sleep)
    with pytest.raises(EnoughError):
        await going.run()
    assert rests == [PERIOD_S] * 3
    assert visited.visits == ["a", "a"]
