"""What docs/operations.md says an installation costs: the manifests ask for it, and the programs hold it."""

import re

import pytest
from prometheus_client import generate_latest

from reconciler import http
from reconciler.bypass import Traffic
from reconciler.counters import DirectionCounters, PodCounters
from reconciler.kernel import buckets
from reconciler.metrics import Metrics
from reconciler.node_state import PodCounts
from reconciler.pods import PodView
from tests.unit.manifests.test_manifests import ROOT, one
from webhook.common.contract import Direction

SECTION = (ROOT / "docs/operations.md").read_text().split("## What it costs\n")[1].split("\n## ")[0]
FIGURES = DirectionCounters(1, 2, 3, 4, 5)


def said(pattern: str) -> int:
    (number,) = re.findall(pattern, re.sub(r"\s+", " ", SECTION))
    return int(number.replace(",", ""))


@pytest.mark.parametrize(("kind", "name"), [("Deployment", "webhook"), ("DaemonSet", "reconciler")])
def test_the_table_has_what_the_manifests_ask_for(kind: str, name: str) -> None:
    (row,) = [line for line in SECTION.splitlines() if line.startswith(f"| {name}, ")]
    _, _, requests, limit, *_ = (cell.strip() for cell in row.split("|"))
    (container,) = one(kind, name)["spec"]["template"]["spec"]["containers"]
    resources = container["resources"]
    assert requests == f"{resources['requests']['cpu']} CPU, {resources['requests']['memory']}"
    assert limit.split(",")[0] == resources["limits"]["memory"]


def slot_bytes() -> int:
    return 2 * (buckets.STATE_BYTES + buckets.LIMIT_BYTES)


def test_a_slot_takes_what_its_two_buckets_take() -> None:
    assert said(r"takes ([\d,]+) bytes of kernel memory") == slot_bytes()
    slots = said(r"`--slots`, (\d+) if not given")
    assert said(r"used or not: (\d+) MB for 256") == round((slots + 1) * slot_bytes() / 1e6)


def test_as_many_slots_as_it_says_fit_into_the_limit_beside_all_else_with_both_programs_of_an_update() -> None:
    """The same figures as in test_manifests: itself, the compiler and its files, and strangers at all bounds."""
    (container,) = one("DaemonSet", "reconciler")["spec"]["template"]["spec"]["containers"]
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Mi")) * 2**20
    connections = http.METRICS_BOUNDS.connections + http.PROBE_BOUNDS.connections
    left = limit - 58e6 - 127e6 - 67e6 - connections * 0.345e6
    fit = left / (2 * slot_bytes()) - 1
    assert fit - 100 < said(r"has room for (\d+) slots") <= fit


def series(metrics: Metrics) -> int:
    text = generate_latest(metrics.registry).decode()
    return len([line for line in text.splitlines() if line.startswith("ipvlan_bandwidth_")])


@pytest.mark.parametrize(
    ("directions", "words"),
    [([*Direction], r"limited both ways has (\d+) series"), ([Direction.EGRESS], r"limited one way has (\d+)")],
    ids=["both", "one"],
)
def test_a_limited_pod_has_as_many_series_as_it_says(directions: list[Direction], words: str) -> None:
    metrics = Metrics()
    before = series(metrics)
    pod = PodView(uid="uid", namespace="shop", name="a")
    metrics.pods.show(
        [(pod, PodCounters("uid", "/run/netns/a", dict.fromkeys(directions, FIGURES)))], [(pod, Traffic())]
    )
    assert series(metrics) - before == said(words)


def test_a_reconciler_has_no_more_series_of_its_own_than_it_says() -> None:
    metrics = Metrics()
    for state in PodCounts._fields:
        metrics.pods_by_state.labels(state).set(0)
    assert series(metrics) < said(r"fewer than (\d+), whatever")
