"""Rows of `make chaos` that must not say "nothing": the cluster is a stand-in, and what it loses is told."""

import contextlib
import itertools
import json
import time
from unittest.mock import MagicMock

import pytest

from tests.cluster import scenario, traffic
from tests.cluster.chaos import load, node, webhook
from tests.cluster.chaos.creator import Creations, Failure
from tests.cluster.chaos.lab import Held
from tests.cluster.traffic import Flow

TEN = {"ingress": 10_000_000, "egress": 10_000_000}
REFUSED = Failure(2.0, 0.1, "500 no endpoints available")
BYPASSED = Failure(3.0, 0.1, "it was made, but the webhook had not seen it")
SAID = ("1 of 102 creations, the first at 3.0 s, after 0.1 s: it was made, but the webhook had not seen it",)
HELD = Held(slots=2, namespaces=4, links=5, programs=1, descriptors=15, threads=3, resident_kib=51000)
GONE = Held(slots=2, namespaces=4, links=5, programs=1, descriptors=0, threads=0, resident_kib=0)


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


def test_a_reconciler_that_is_gone_leaks_nothing_and_is_told_of():
    assert HELD.leaks(HELD) == ()
    assert HELD.leaks(GONE) == ("the reconciler is gone",)


@pytest.fixture
def wave(lab, monkeypatch):
    """The Pods of each wave, and what the kernel holds for them."""
    names = [f"many-{number}" for number in range(load.IN_TURN)]
    running = [{"metadata": {"name": name}, "status": {"phase": "Running"}} for name in names]
    lab.cluster.kubectl_json.return_value = {"items": running}
    lab.held.return_value = HELD
    rows = [
        {"pod": f"chaos/{name}", "direction": direction, "bits_per_second": limit}
        for name, (direction, limit) in itertools.product(names, TEN.items())
    ]
    monkeypatch.setattr(scenario, "observe", lambda *_: json.dumps(rows))
    return rows


def test_pods_of_a_wave_that_run_without_their_limits_are_lost(lab, wave):
    assert load.many_in_turn(lab).lost == ()
    del wave[0]
    (said,) = load.many_in_turn(lab).lost
    assert said == f"{load.WAVES + 1} Pods run without their limits, such as chaos/many-0"


@pytest.mark.parametrize(
    ("sent", "received", "lost"),
    [(89, 88, False), (78, 97, False), (76, 88, True), (89, 98, True), (0, 88, True)],
)
def test_probes_show_nothing_unless_the_flows_use_the_limit_up(lab, monkeypatch, sent, received, lost):
    counted = itertools.cycle([{"successful": 0.0, "failed": 0.0}, {"successful": 60.0, "failed": 0.0}])
    monkeypatch.setattr(load, "_probed", lambda _: next(counted))
    flows = iter([sent, received])
    monkeypatch.setattr(
        traffic, "start", lambda *_, **__: MagicMock(**{"end.return_value": Flow(next(flows) / 1000, ())})
    )
    lab.cluster.pod.return_value = {"status": {"containerStatuses": [{"restartCount": 0}]}}
    outcome = load.probes(lab)
    said = f"its limits were not used up, or not kept to: {sent} and {received} kbit/s of 100k were carried"
    assert outcome.lost == ((said,) if lost else ())
