"""The reconciler's Prometheus metrics, in a registry of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from reconciler.bypass import Traffic
from reconciler.counters import PodCounters
from reconciler.pods import PodView
from webhook.common.version import REVISION, VERSION

PREFIX = "ipvlan_bandwidth_"
_LABELS = ("namespace", "pod", "direction")


class Metrics:
    """What is counted while running, and what the kernel counted at the last scrape."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        build = Gauge(PREFIX + "build_info", "1 for what runs.", ["version", "revision"], registry=self.registry)
        build.labels(VERSION, REVISION).set(1)
        self.pods = PodMetrics()
        self.registry.register(self.pods)
        self.pods_by_state = Gauge(PREFIX + "pods", "Pods of this node by state.", ["state"], registry=self.registry)
        self.slots = Gauge(PREFIX + "slots", "The most Pods that can be limited at once.", registry=self.registry)
        self.hook_seconds = Histogram(
            PREFIX + "sandbox_seconds",
            "Seconds that a starting Pod waited for its limits.",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=self.registry,
        )
        self.errors = Counter(
            PREFIX + "reconcile_errors", "Limits that could not be applied, by kind.", ["kind"], registry=self.registry
        )
        self.repairs = Counter(
            PREFIX + "drift_repairs", "Times that shaping was changed by others and put back.", registry=self.registry
        )
        self.kernel_lacks = Gauge(
            PREFIX + "kernel_lacks",
            "1 for each kernel feature that is missing; vital=yes if a limit cannot be enforced without it.",
            ["feature", "vital"],
            registry=self.registry,
        )
        self.unshaped_seconds = Counter(
            PREFIX + "unshaped_seconds",
            "Seconds that Pods ran without their limits, as they started before they could be limited.",
            registry=self.registry,
        )
        self.events_dropped = Counter(
            PREFIX + "events_dropped", "Events that were not posted to the API server.", registry=self.registry
        )
        self.watch_restarts = Counter(
            PREFIX + "watch_restarts",
            "Times that the watch on Pods was started again, also after silence.",
            registry=self.registry,
        )
        self.watch_connected = Gauge(
            PREFIX + "watch_connected", "1 while the API server tells of Pods.", registry=self.registry
        )
        self.registered = Gauge(
            PREFIX + "runtime_registered", "1 while the container runtime has the plugin.", registry=self.registry
        )
        self.connected = Gauge(
            PREFIX + "runtime_connected",
            "1 while the container runtime has the plugin, and has told of its Pods.",
            registry=self.registry,
        )


class PodMetrics(Collector):
    """Per-Pod counters, replaced at each scrape; their number is bounded by the number of slots."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], PodCounters] = {}
        self._unshaped: dict[tuple[str, str], Traffic] = {}

    def show(
        self, rows: Iterable[tuple[PodView, PodCounters]], unshaped: Iterable[tuple[PodView, Traffic]] = ()
    ) -> None:
        """Take the kernel's counters, and what went past the limits. Of two sandboxes of a Pod, the later counts."""
        by_age = sorted(
            rows, key=lambda row: row[1].generation
        )  # after a restart the counters come in the order of their slots
        self._rows = {(pod.namespace, pod.name): counted for pod, counted in by_age}
        self._unshaped = {(pod.namespace, pod.name): traffic for pod, traffic in unshaped}

    def collect(self) -> Iterator[Metric]:
        """One family per figure, one sample per Pod and direction."""
        limit = GaugeMetricFamily(PREFIX + "limit_bits_per_second", "The limit in force.", labels=_LABELS)
        families = {
            name: CounterMetricFamily(PREFIX + name, text, labels=_LABELS)
            for name, text in (
                ("bytes", "Bytes charged, with link-layer headers."),
                ("packets", "Packets charged."),
                ("drops", "Packets dropped to keep the queue short."),
                ("marks", "Packets marked by ECN to keep the queue short."),
            )
        }
        queue = GaugeMetricFamily(
            PREFIX + "queue_seconds", "How long a bulk-flow packet arriving now would wait.", labels=_LABELS
        )
        for pod, counted in self._rows.items():
            for direction, figures in counted.directions.items():
                labels = (*pod, direction.value)
                if direction not in counted.withheld:
                    limit.add_metric(labels, figures.bits_per_second)
                queue.add_metric(labels, figures.queue_ns / 1e9)
                for name, family in families.items():
                    family.add_metric(labels, getattr(figures, name))
        yield limit
        yield queue
        yield from families.values()
        yield from self._past_the_limit()

    def _past_the_limit(self) -> Iterator[Metric]:
        size = CounterMetricFamily(
            PREFIX + "unshaped_bytes", "Bytes seen to pass by the egress limit, at least.", labels=_LABELS[:2]
        )
        packets = CounterMetricFamily(
            PREFIX + "unshaped_packets", "Packets seen to pass by the egress limit, at least.", labels=_LABELS[:2]
        )
        for pod, traffic in self._unshaped.items():
            size.add_metric(pod, traffic.bytes)
            packets.add_metric(pod, traffic.packets)
        yield size
        yield packets
