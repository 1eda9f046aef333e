"""Rows of `make chaos` that must not say "nothing": the cluster is a stand-in, and what it loses is told."""

import contextlib
import itertools
import json
import time
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from tests.cluster import scenario, traffic
from tests.cluster.chaos import authors, control_plane, load, node, reconciler, webhook
from tests.cluster.chaos.creator import Creations, Failure
from tests.cluster.chaos.lab import LIMIT, Held
from tests.cluster.traffic import Flow, Recording
from tests.losses import Doubt
from tests.unit.manifests.test_manifests import one

TEN = {"ingress": 10_000_000, "egress": 10_000_000}
SENDERS = {"egress": LIMIT * 1_000_000}
REFUSED = Failure(2.0, 0.1, "500 no endpoints available")
BYPASSED = Failure(3.0, 0.1, "it was made, but the webhook had not seen it")
SAID = ("1 of 102 creations, the first at 3.0 s, after 0.1 s: it was made, but the webhook had not seen it",)
HELD = Held(slots=2, namespaces=4, links=5, programs=1, descriptors=15, threads=3, resident_kib=51000)
GONE = Held(slots=2, namespaces=4, links=5, programs=1, descriptors=0, threads=0, resident_kib=0)


@pytest.fixture
def lab(monkeypatch):
    """A Lab in which all goes well, and some Pods are refused."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    lab = MagicMock()
    lab.flow = Flow(9.5, (9.5,))
    monkeypatch.setattr(traffic, "measure", lambda *_, **__: lab.flow)
    monkeypatch.setattr(reconciler, "wait_for", lambda *_, **__: True)
    names = (f"webhook-{number}" for number in itertools.count())
    lab.webhooks = lambda: [{"metadata": {"name": next(names)}} for _ in range(2)]
    monkeypatch.setattr(scenario, "webhooks", lambda _: lab.webhooks())
    monkeypatch.setattr(scenario, "wait_for_event", lambda *_: "told")
    monkeypatch.setattr(scenario, "pods_of", lambda *_: {1: "chaos/a", 2: "chaos/b"})
    monkeypatch.setattr(node, "wait_for", lambda _, probe, *__, **___: probe())
    monkeypatch.setattr(node, "_one_replica_on_each_node", lambda _: None)
    lab.limits_of.return_value = TEN
    lab.metrics.return_value = {}
    lab.here = Creations(made=100, failures=[REFUSED])
    lab.creating.return_value = contextlib.nullcontext(lab.here)
    lab.elsewhere = Creations(made=100)
    lab.creating_elsewhere.return_value = contextlib.nullcontext(lab.elsewhere)
    lab.metering.return_value = contextlib.nullcontext(MagicMock(lost=(), low=()))
    return lab


@pytest.mark.parametrize("row", [webhook.deleted, node.node_lost])
def test_a_refusal_is_no_loss_of_an_outage_but_a_pod_made_past_the_webhook_is(lab, row):
    assert row(lab).lost == ()
    lab.here.amiss.append(BYPASSED)
    outcome = row(lab)
    assert outcome.lost == SAID
    assert "1 of 102 bare Pods" in outcome.seen or "1 bare Pods were refused" in outcome.seen


@pytest.mark.parametrize("row", [webhook.deleted, node.node_lost])
def test_an_outage_without_a_load_shows_nothing(lab, row):
    lab.here.seconds = lab.elsewhere.seconds = 50
    assert row(lab).lost == (
        "only 101 creations were tried in 50 s at 5 a second",
        "in another namespace: only 100 creations were tried in 50 s at 5 a second",
    )


def test_old_replicas_may_take_all_of_their_grace_and_kubelets_second_look_at_them(lab, monkeypatch):
    waits = []
    monkeypatch.setattr(webhook, "wait_for", lambda *given: waits.append(given[-1]))
    webhook.rolled(lab)
    assert min(waits) > one("Deployment", "webhook")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] + 120


def test_a_replica_that_was_not_killed_is_told_of(lab):
    lab.webhooks = lambda: [{"metadata": {"name": "webhook-0"}}]
    assert webhook.deleted(lab).lost == ("inconclusive: of the replicas, 1 of 1 lived on",)


@pytest.mark.parametrize("sent", [0.0, 4.0, 9.9])
def test_a_pod_that_sends_nothing_is_not_limited_as_before(lab, sent):
    lab.flow = Flow(sent, (sent,))
    assert node.node_lost(lab).lost == (f"afterwards the node's Pod sent {lab.flow}",)
    assert reconciler.away(lab).lost[0] == f"after the reconciler came back the Pod sent {lab.flow}"


@pytest.mark.parametrize(("label", "sent", "lost"), [("true", 9.5, 0), ("false", 9.5, 1), ("true", 0.0, 1)])
def test_a_forger_is_held_to_its_limit_and_label(lab, label, sent, lost):
    lab.flow = Flow(sent, (sent,))
    lab.limits_of.side_effect = lambda pod: {"egress": 20_000_000 if pod.endswith("sender") else 10_000_000}
    lab.cluster.pod.return_value = {"metadata": {"labels": {scenario.MANAGED: label}}}
    assert len(authors.annotations_forged(lab).lost) == lost


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


def are_doubts(lost):
    return [isinstance(each, Doubt) for each in lost]


@pytest.mark.parametrize(("sent", "doubt"), [(4.0, True), (9.9, False)])
def test_a_flow_that_has_too_little_may_have_been_slow_and_one_that_has_too_much_was_not(lab, sent, doubt):
    lab.flow = Flow(sent, (sent,))
    lab.limits_of.side_effect = lambda pod: {"egress": 20_000_000 if pod.endswith("sender") else 10_000_000}
    lab.cluster.pod.return_value = {"metadata": {"labels": {scenario.MANAGED: "true"}}}
    assert are_doubts(authors.annotations_forged(lab).lost) == [doubt]
    assert are_doubts(reconciler.away(lab).lost[:1]) == [doubt]
    lab.limits_of.side_effect = None
    assert are_doubts(node.node_lost(lab).lost) == [doubt]
    lab.limits_of.return_value = {}
    assert are_doubts(node.node_lost(lab).lost) == [False, doubt]


@pytest.mark.parametrize("row", [webhook.deleted, node.node_lost])
def test_a_load_that_was_not_made_may_be_the_machines_doing_and_a_pod_made_past_the_webhook_is_not(lab, row):
    lab.here.seconds = lab.elsewhere.seconds = 50
    lab.here.amiss.append(BYPASSED)
    assert are_doubts(row(lab).lost) == [False, True, True]


def clock(monkeypatch, module, step):
    """A module's clock, which goes on by so many seconds at each look."""
    looks = itertools.count(0, step)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(looks), sleep=lambda _: None))


@pytest.mark.parametrize(
    ("took", "until", "lost"),
    [
        (60, 62.0, ()),
        (61, 62.0, ("the Deployment's Pods ran only 61 s after, of 60 at most",)),
        (14, 64.0, ("bare Pods were refused during 62 s, of 60 at most",)),
    ],
)
def test_an_outage_that_does_not_end_soon_is_told_and_may_have_been_slow(lab, monkeypatch, took, until, lost):
    clock(monkeypatch, webhook, took)
    lab.here.failures.append(Failure(until, 0.1, REFUSED.why))
    outcome = webhook.deleted(lab)
    assert outcome.lost == lost
    assert all(are_doubts(outcome.lost))


@pytest.mark.parametrize(
    ("took", "lost"), [(90.0, ()), (90.6, ("a changed limit was in force only after 91 s, of 90 at most",))]
)
@pytest.mark.parametrize(
    "row",
    [
        control_plane.frozen,
        control_plane.frozen_long,
        control_plane.killed,
        control_plane.expired,
        reconciler.silent,
    ],
)
def test_a_limit_that_is_in_force_late_is_told_and_may_have_been_slow(lab, monkeypatch, row, took, lost):
    monkeypatch.setattr(control_plane, "_until_answers", lambda _: None)
    monkeypatch.setattr(control_plane, "wait_for", lambda *_: SENDERS | {"ingress": 7_000_000})
    for name in ("annotate", "gone", "wait_for_restart"):
        monkeypatch.setattr(scenario, name, lambda *_: None)
    monkeypatch.setattr(scenario, "reconciler_restarts", lambda *_: 0)
    monkeypatch.setattr(scenario, "events_of", lambda *_: [])
    lab.plain, lab.kubectl.return_value = "plain", "Expired"
    lab.metrics.return_value = {"ipvlan_bandwidth_runtime_connected": 0}
    lab.limits_of.return_value, lab.until_limited.return_value = SENDERS, took
    outcome = row(lab)
    assert outcome.lost == lost
    assert all(are_doubts(outcome.lost))


@pytest.mark.parametrize(
    ("took", "waited", "lost"),
    [
        (140, 10.0, ()),
        (141, 10.0, ("all ran only after 141 s, of 140 at most",)),
        (140, 20.0, ("sandboxes waited 2.0 s on average, of 1 at most",)),
    ],
)
@pytest.mark.usefixtures("wave")
def test_many_pods_that_run_late_or_wait_long_are_told_of(lab, monkeypatch, took, waited, lost):
    clock(monkeypatch, load, took)
    monkeypatch.setattr(load, "AT_ONCE", load.IN_TURN)
    name = "ipvlan_bandwidth_sandbox_seconds"
    lab.metrics.side_effect = [
        {f"{name}_count": 2.0, f"{name}_sum": 1.0},
        {f"{name}_count": 2.0 + load.IN_TURN, f"{name}_sum": 1.0 + waited},
    ]
    outcome = load.many_at_once(lab)
    assert outcome.lost == lost
    assert all(are_doubts(outcome.lost))


@pytest.mark.parametrize(
    ("size", "ms", "lost", "doubt"),
    [
        (10_000, 2000, (), False),
        (10_800, 2000, ("its fastest second, from its first packet on, was 21.6 Mbit/s of 20",), False),
        (10_000, 300, ("inconclusive: 6.0 Mbit/s of 20 at most in what was recorded",), True),
        (10_000, 0, ("inconclusive: 0.0 Mbit/s of 20 at most in what was recorded",), True),
    ],
)
def test_a_new_sandbox_of_which_too_little_was_recorded_shows_nothing(lab, monkeypatch, *, size, ms, lost, doubt):
    pids = itertools.count(1)
    monkeypatch.setattr(node, "sandbox_pid", lambda *_: str(next(pids)))
    monkeypatch.setattr(traffic, "address", lambda *_: "10.0.0.1")
    recording = Recording({"10.0.0.1": [(at, size) for at in range(0, ms, 4)]} if ms else {})
    monkeypatch.setattr(traffic, "recorded", lambda *_: contextlib.nullcontext(recording))
    monkeypatch.setattr(node, "RECORDED_S", 0)
    lab.held.return_value, lab.limits_of.return_value = HELD, {"egress": 20_000_000}
    outcome = node.sandbox_killed(lab)
    assert outcome.lost == lost
    assert are_doubts(outcome.lost) == [doubt] * len(lost)
