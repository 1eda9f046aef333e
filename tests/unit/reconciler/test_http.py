"""The port for probes and metrics."""

import pytest
from aiohttp.test_utils import TestClient, TestServer

from reconciler.http import application
from reconciler.metrics import Metrics
from reconciler.pods import PodView
from reconciler.shaping import DirectionCounters, PodCounters
from webhook.contract import Direction

COUNTED = PodCounters(
    "u1",
    "/run/netns/a",
    {Direction.INGRESS: DirectionCounters(bits_per_second=1_000_000, bytes=3028, packets=2, drops=1, marks=0)},
)


class Node:
    """Why the reconciler is not ready, and its metrics."""

    def __init__(self):
        self.reason = "the BPF program is not loaded yet"
        self.metrics = Metrics()

    async def scrape(self):
        self.metrics.pods.show([(PodView("u1", "shop", "web-0"), COUNTED)])


@pytest.fixture
def node():
    return Node()


@pytest.fixture
async def client(node):
    app = application(why_not_ready=lambda: node.reason, before_scrape=node.scrape, registry=node.metrics.registry)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_alive_is_not_ready(node, client):
    assert (await client.get("/healthz")).status == 200
    answer = await client.get("/readyz")
    assert (answer.status, await answer.text()) == (503, "the BPF program is not loaded yet\n")
    node.reason = None
    assert (await client.get("/readyz")).status == 200


async def test_metrics_name_the_pod_and_the_direction(client):
    text = await (await client.get("/metrics")).text()
    labels = '{direction="ingress",namespace="shop",pod="web-0"}'
    assert f"ipvlan_bandwidth_limit_bits_per_second{labels} 1e+06" in text
    assert f"ipvlan_bandwidth_bytes_total{labels} 3028.0" in text
    assert f"ipvlan_bandwidth_drops_total{labels} 1.0" in text
