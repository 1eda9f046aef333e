"""Rows of `make chaos` that must not say "nothing": the cluster is a stand-in, and what it loses is told."""

import contextlib
import time
from unittest.mock import MagicMock

import pytest

from tests.cluster import scenario, traffic
from tests.cluster.chaos import node, webhook
from tests.cluster.chaos.creator import Creations, Failure
from tests.cluster.traffic import Flow

TEN = {"ingress": 10_000_000, "egress": 10_000_000}
REFUSED = Failure(2.0, 0.1, "500 no endpoints available")
BYPASSED = Failure(3.0, 0.1, "it was made, but the webhook had not seen it")
SAID = ("1 of 102 creations, the first at 3.0 s, after 0.1 s: it was made, but the webhook had not seen it",)


@pytest.fixture
def lab(monkeypatch):
    """A Lab in which all goes well, and some Pods are refused."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(traffic, "measure", lambda *_, **__: Flow(9.5, (9.5,)))
    monkeypatch.setattr(scenario, "pods_of", lambda *_: {1: "chaos/a", 2: "chaos/b"})
    monkeypatch.setattr(node, "wait_for", lambda _, probe, *__, **___: probe())
    monkeypatch.setattr(node, "_one_replica_on_each_node", lambda _: None)
    lab = MagicMock()
    lab.limits_of.return_value = TEN
    lab.here = Creations(made=100, failures=[REFUSED])
    lab.creating.return_value = contextlib.nullcontext(lab.here)
    lab.creating_elsewhere.return_value = contextlib.nullcontext(Creations(made=100))
    lab.metering.return_value = contextlib.nullcontext(MagicMock(lost=(), low=()))
    return lab


@pytest.mark.parametrize("row", [webhook.deleted, node.node_lost])
def test_a_refusal_is_no_loss_of_an_outage_but_a_pod_made_past_the_webhook_is(lab, row):
    assert row(lab).lost == ()
    lab.here.amiss.append(BYPASSED)
    outcome = row(lab)
    assert outcome.lost == SAID
    assert "1 of 102 bare Pods" in outcome.seen or "1 bare Pods were refused" in outcome.seen
