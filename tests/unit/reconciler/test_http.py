"""The port for probes and metrics."""

import asyncio
from dataclasses import replace

import pytest
from aiohttp.test_utils import RawTestServer, TestClient
from prometheus_client import generate_latest

from reconciler.bypass import Traffic
from reconciler.counters import DirectionCounters, PodCounters
from reconciler.metrics import Metrics
from reconciler.pods import PodView
from webhook.common.contract import Direction
from webhook.common.pages import Pages

COUNTED = PodCounters(
    "u1",
    "/run/netns/a",
    {
        Direction.INGRESS: DirectionCounters(
            bits_per_second=1_000_000, bytes=3028, packets=2, drops=1, marks=0, queue_ns=2_000_000
        )
    },
)


class Node:
    """Why the reconciler is not ready, and its metrics."""

    def __init__(self):
        self.reason = "the BPF program is not loaded yet"
        self.metrics = Metrics()
        self.now_s = 0.0
        self.scrapes = 0

    async def scrape(self):
        self.scrapes += 1
        await asyncio.sleep(0.01)
        pod = PodView("u1", "shop", "web-0")
        self.metrics.pods.show([(pod, COUNTED)], [(pod, Traffic(6056, 4))])


@pytest.fixture
def node():
    return Node()


@pytest.fixture
async def client(node):
    pages = Pages(lambda: node.reason, node.metrics.registry, node.scrape, monotonic=lambda: node.now_s)
    async with TestClient(RawTestServer(pages.handle)) as client:
        yield client


async def test_alive_is_not_ready(node, client):
    assert (await client.get("/healthz")).status == 200
    answer = await client.get("/readyz")
    assert (answer.status, await answer.text()) == (503, "the BPF program is not loaded yet\n")
    node.reason = None
    assert (await client.get("/readyz")).status == 200


async def test_other_pages_and_methods_are_told_what_there_is(client):
    assert (await client.get("/")).status == 404
    answer = await client.post("/metrics")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


async def test_however_many_ask_for_the_metrics_the_kernel_is_read_at_most_four_times_a_second(node, client):
    answers = await asyncio.gather(*(client.get("/metrics") for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert node.scrapes == 1
    node.now_s = 0.25
    await client.get("/metrics")
    assert node.scrapes == 2


async def test_metrics_name_the_pod_and_the_direction(client):
    text = await (await client.get("/metrics")).text()
    labels = '{direction="ingress",namespace="shop",pod="web-0"}'
    assert f"ipvlan_bandwidth_limit_bits_per_second{labels} 1e+06" in text
    assert f"ipvlan_bandwidth_bytes_total{labels} 3028.0" in text
    assert f"ipvlan_bandwidth_drops_total{labels} 1.0" in text
    assert f"ipvlan_bandwidth_queue_seconds{labels} 0.002" in text
    assert 'ipvlan_bandwidth_unshaped_packets_total{namespace="shop",pod="web-0"} 4.0' in text
    assert 'ipvlan_bandwidth_unshaped_bytes_total{namespace="shop",pod="web-0"} 6056.0' in text


@pytest.mark.parametrize("order", [1, -1])
async def test_of_two_sandboxes_of_a_pod_the_later_is_its_one_row(node, order):
    """While one is torn down the Pod has two: Prometheus takes no sample twice."""
    pod, later = PodView("u1", "shop", "web-0"), {Direction.INGRESS: DirectionCounters(1_000_000, 98, 1, 0, 0)}
    rows = [(pod, replace(COUNTED, generation=7)), (pod, PodCounters("u1", "/run/netns/b", later, generation=8))]
    node.metrics.pods.show(rows[::order])
    text = generate_latest(node.metrics.registry).decode()
    bytes_of_pod = 'ipvlan_bandwidth_bytes_total{direction="ingress",namespace="shop",pod="web-0"}'
    assert text.count(bytes_of_pod) == 1
    assert f"{bytes_of_pod} 98.0" in text
