"""A controller at work on a kernel that is only remembered; tests/kernel and tests/cluster have the real one."""

import asyncio
from concurrent.futures import Executor, Future

from reconciler.controller import Controller
from reconciler.metrics import Metrics
from reconciler.nri.messages import PodSandbox
from reconciler.pods import from_api
from reconciler.sandboxes import Key
from reconciler.shaping import ShapingOutcome
from tests.waiting import turns
from webhook.common.contract import Limits, Quantity

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
        self.held: dict[Key, Limits] = {}
        self.failing: dict[str, list[Exception]] = {}
        self.interfaces = ("eth0",)
        self.mode = "l3"
        self.others = {}
        self.calls = []
        self.altered = []
        self.problems = ()
        self.missing = {}
        self.lack = None
        self.audit_failures = []
        self.counter_failures = []
        self.closed = 0

    def shape(self, pod_uid, netns_path, limits):
        self.calls.append((pod_uid, netns_path, limits))
        if self.failing.get(netns_path):
            raise self.failing[netns_path].pop(0)
        key = Key(pod_uid, netns_path)
        before = self.held.get(key, Limits())
        self.held[key] = limits
        return ShapingOutcome(
            steps=("write limits",) if before != limits else (),
            problems=self.problems,
            interfaces=self.interfaces,
            missing={each: links for each, links in self.missing.items() if limits.get(each)},
            lack=self.lack if limits.ingress else None,
            modes=dict.fromkeys(self.interfaces, self.mode),
            indexes=frozenset(range(2, 2 + len(self.interfaces))),
            others=self.others,
            slot_freed=bool(before) and not limits,
        )

    def release(self, pod_uid, netns_path):
        return self.held.pop(Key(pod_uid, netns_path), None) is not None

    def collect(self, live):
        gone = [key for key in self.held if key not in live and key[1] in self.gone]
        for key in gone:
            del self.held[key]
        return len(gone)

    def audit(self):
        if self.audit_failures:
            raise self.audit_failures.pop(0)
        uids, self.altered = self.altered, []
        return uids

    def inodes(self, keys):
        return {key: None if key[1] in self.gone else 7 for key in keys}

    def slot_owners(self):
        return []

    def counters(self, _owners=None):
        if self.counter_failures:
            raise self.counter_failures.pop(0)
        return []

    def close(self):
        self.closed += 1

    def sample(self, pod_uid, netns_path, interfaces):
        if self.failing.get(netns_path):
            raise self.failing[netns_path].pop(0)
        return pod_uid, netns_path, interfaces


class FakeEventRecorder:
    def __init__(self):
        self.notices = []
        self.messages = []

    def record(self, about, notice):
        self.notices.append((str(about), notice.reason))
        self.messages.append(notice.message)

    def record_node(self, notice):
        self.record("the node", notice)

    def forget(self, uid):
        self.notices.append((uid, "forgotten"))


class Deaf:
    """Hears nothing of what it watches."""

    def __init__(self):
        self.watched = set()

    def watch(self, netns_path):
        self.watched.add(netns_path)

    def unwatch(self, netns_path):
        self.watched.discard(netns_path)


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


STARTED_S = 1_000_000_000.0
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

    def __init__(self, *, start_failures=(), told=None):
        self.kernel, self.told, self.slept = Kernel(), told or FakeEventRecorder(), []
        self.monitor = Deaf()
        self.start_failures = list(start_failures)
        self.prepare_failures, self.prepared = [], 0
        self.started_with = None
        self.now_s = STARTED_S + 30
        self.netns_created_s = {}
        self.metrics = Metrics()
        self.gate = None
        self.controller = Controller(
            self._start,
            prepare=self._prepare,
            monitor=self.monitor,
            events=self.told,
            metrics=self.metrics,
            executor=Inline(),
            sleep=self._sleep,
            monotonic=lambda: 0.0,
            epoch_s=lambda: self.now_s,
            netns_created_s=lambda path: self.netns_created_s.get(path, 0.0),
        )

    def _start(self, keys):
        if self.start_failures:
            raise self.start_failures.pop(0)
        self.started_with = list(keys)
        return self.kernel

    def _prepare(self):
        self.prepared += 1
        if self.prepare_failures:
            raise self.prepare_failures.pop(0)

    async def _sleep(self, seconds):
        self.slept.append(seconds)
        await asyncio.sleep(0)
        if self.gate:
            await self.gate.wait()

    def on_pods(self, items):
        """The API server's list, as the reflector hands it on."""
        self.controller.on_pods([view for item in items if (view := from_api(item))])

    def on_pod_event(self, kind, item):
        """One of its events, likewise."""
        if view := from_api(item):
            self.controller.on_pod_event(kind, view)

    async def settle(self):
        await turns(60)


def metric(of, name, **labels):
    """A sample, of whatever has `metrics`."""
    return of.metrics.registry.get_sample_value(f"ipvlan_bandwidth_{name}", labels)


def unshaped_seconds(bench):
    return metric(bench, "unshaped_seconds_total")
