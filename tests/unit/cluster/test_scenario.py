"""What the cluster's tests ask it, they ask the right Pod, and no more often than they need to."""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from tests.cluster import commands, scenario, traffic
from tests.cluster.chaos.lab import Lab
from tests.cluster.cluster import Cluster
from tests.cluster.commands import ClusterError


def pod(name, node=None, *, ends=False):
    metadata = {"name": name, "namespace": "shop"} | ({"deletionTimestamp": "2026-01-01T00:00:00Z"} if ends else {})
    return {"metadata": metadata, "spec": {"nodeName": node} if node else {}, "status": {"podIP": "172.51.0.9"}}


def test_the_reconciler_of_a_node_is_one_that_stays_and_is_waited_for(monkeypatch):
    ending = [pod("ending", "node1", ends=True), pod("not-bound"), pod("elsewhere", "node2")]
    looks = iter([[], ending, [*ending, pod("new", "node1")]])
    monkeypatch.setattr(commands, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda _: None))

    def listed(*_):
        return next(looks)

    cluster = SimpleNamespace(pods=listed, kubectl_json=lambda *_: {"items": listed()})
    assert scenario.reconciler_on(cluster, 1) == "new"


@pytest.mark.parametrize("limits", [{}, {"ingress": 20_000_000, "egress": 10_000_000}])
def test_the_limits_of_a_pod_are_its_own_rows_of_what_is_observed(monkeypatch, limits):
    rows = [f'{{"pod": "shop/a", "direction": "{each}", "bits_per_second": {rate}}}' for each, rate in limits.items()]
    other = '{"pod": "shop/b", "direction": "egress", "bits_per_second": 1}'
    monkeypatch.setattr(scenario, "observe", lambda *_: f"[{', '.join([other, *rows])}]")
    cluster = SimpleNamespace(node_of=lambda _: SimpleNamespace(number=1))
    assert scenario.kernel_limits(cluster, "shop/a") == Lab(cluster).limits_of("shop/a") == limits


def test_limits_that_no_reconciler_can_be_asked_for_are_none_and_a_pod_on_no_node_is_told_of(monkeypatch):
    monkeypatch.setattr(scenario, "observe", Mock(side_effect=ClusterError("status 1")))
    nodes = Mock(side_effect=[SimpleNamespace(number=1), ClusterError("on no node yet")])
    lab = Lab(SimpleNamespace(node_of=nodes))
    assert lab.limits_of("shop/a") is None
    with pytest.raises(ClusterError, match="on no node yet"):
        lab.limits_of("shop/a")


class Node:
    """Runs nothing; an iperf3 listens at once."""

    def __init__(self, number):
        self.number, self.began = number, []

    def run(self, *_, **__):
        return SimpleNamespace(stdout="LISTEN")

    def popen(self, *command, pod):
        self.began.append((command[0], pod))


def test_a_transfer_asks_the_api_server_once_for_each_of_its_pods():
    asked, nodes = [], {1: Node(1), 2: Node(2)}

    class Asked(Cluster):
        def pod(self, pod_):
            asked.append(pod_)
            return pod(pod_, {"shop/a": "node1", "shop/b": "node2"}[pod_])

        def node(self, number):
            return nodes[number]

    traffic.start(Asked(), "shop/a", "shop/b")
    assert sorted(asked) == ["shop/a", "shop/b"]
    assert nodes[1].began == [("iperf3", "shop/a")]
    assert nodes[2].began == [("iperf3", "shop/b")]
