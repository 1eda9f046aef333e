"""What both programs serve at /metrics, read by Prometheus' own tool, which knows how metrics are to be named."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics import MetricWrapperBase

import reconciler.metrics
import webhook.metrics
from reconciler.bypass import Traffic
from reconciler.counters import DirectionCounters, PodCounters
from reconciler.pods import PodView
from tests.prometheus.promtool import promtool
from webhook.common.contract import Direction

POD = PodView("u1", "shop", "web-0")
FIGURES = DirectionCounters(bits_per_second=1_000_000, bytes=3028, packets=2, drops=1, marks=1, queue_ns=2_000_000)
LINT = 3
"""promtool's exit status when a name is not as it should be."""


def with_all_series(registry: CollectorRegistry) -> bytes:
    """The page, with at least one series of each metric that has labels."""
    for collector in list(registry._collector_to_names):
        if isinstance(collector, MetricWrapperBase) and collector._labelnames:
            collector.labels(*collector._labelnames)
    families = list(registry.collect())
    assert families
    for family in families:
        assert family.samples, family.name
    return generate_latest(registry)


def test_the_webhooks_are_as_they_should_be() -> None:
    assert promtool("check", "metrics", given=with_all_series(webhook.metrics.Metrics().registry)) == (0, "")


def test_the_reconcilers_are_as_they_should_be_but_for_the_unit_of_a_limit() -> None:
    """It is that of the annotation: in bytes nobody would find there what he asked for."""
    metrics = reconciler.metrics.Metrics()
    metrics.pods.show(
        [(POD, PodCounters("u1", "/run/netns/a", dict.fromkeys(Direction, FIGURES)))], [(POD, Traffic(1, 1))]
    )
    status, said = promtool("check", "metrics", given=with_all_series(metrics.registry))
    assert (status, said.splitlines()) == (
        LINT,
        ['ipvlan_bandwidth_limit_bits_per_second use base unit "bytes" instead of "bits"'],
    )
