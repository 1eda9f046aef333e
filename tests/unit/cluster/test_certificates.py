"""What counts as lost while the webhook's certificates have bad days; the cluster is a stand-in."""

import contextlib
import threading
import time
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from tests.cluster import certificates, scenario
from tests.cluster.cluster import ClusterError
from tests.cluster.creations import Creations
from tests.losses import Doubt


@pytest.fixture
def creations(monkeypatch):
    """What the stand-in says became of the Pods while a caBundle was mended."""
    found = Creations(made=50)
    monkeypatch.setattr(scenario, "namespace", lambda *_: None)
    monkeypatch.setattr(certificates, "Api", contextlib.nullcontext)
    monkeypatch.setattr(certificates, "_mended", lambda *_: (found, certificates._figures(found), []))
    return found


def test_a_pod_that_nobody_reviewed_is_lost_unless_there_was_no_configuration(creations):
    creations.unreviewed.append("created-0-1 was made without having been admitted")
    outcomes = certificates.lose_the_bundle(None)
    assert [bool(outcome.lost) for outcome in outcomes] == [True, True, True, False]
    assert outcomes[-1].done == certificates.DELETED
    assert [outcome.seen["unreviewed"] for outcome in outcomes] == [1] * 4


def test_a_pod_that_was_not_made_is_lost_and_one_that_was_refused_is_not(creations):
    creations.refusals.append("created-0-1 after 0.1 s: refused")
    assert [outcome.lost for outcome in certificates.lose_the_bundle(None)] == [()] * 4
    creations.unmade.append("created-0-1 was not made in 60 s")
    assert all(outcome.lost == ("created-0-1 was not made in 60 s",) for outcome in certificates.lose_the_bundle(None))


def test_what_was_mended_while_no_pod_was_made_shows_nothing(monkeypatch):
    found = Creations()
    events = iter(([], ["CABundleRepaired"]) * 2)
    monkeypatch.setattr(certificates, "Creating", lambda *_: contextlib.nullcontext(found))
    monkeypatch.setattr(certificates, "_events", lambda _: next(events))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    nothing = (None, None, "damaged", lambda: None, lambda: True)
    assert certificates._mended(*nothing)[2] == ["only 0 Pods were made meanwhile"]
    found.made = 40
    assert certificates._mended(*nothing)[2] == []


@pytest.mark.parametrize(
    ("authorities", "made", "handshakes", "looks", "lost"),
    [
        (9, 300, 300, 150, ()),
        (1, 300, 300, 150, ("only 1 authorities in 300 s",)),
        (9, 0, 0, 150, ("only 0 Pods in 300 s", "only 0 handshakes in 300 s")),
        (9, 300, 300, 149, ("only 149 looks in 300 s",)),
    ],
)
def test_a_rotation_that_did_not_take_place_is_told(monkeypatch, *, authorities, made, handshakes, looks, lost):
    watched = certificates._Watched(authorities=set(range(authorities)), handshakes=handshakes, looks=looks)
    monkeypatch.setattr(scenario, "namespace", lambda *_: None)
    monkeypatch.setattr(certificates, "replicas", lambda _: {"webhook-1": 0})
    monkeypatch.setattr(certificates, "_settings", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(certificates, "_watching", lambda _: contextlib.nullcontext(watched))
    monkeypatch.setattr(certificates, "Creating", lambda *_: contextlib.nullcontext(Creations(made=made)))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    assert certificates.rotate(None, seconds=300).lost == lost


def test_what_was_late_may_have_been_slow_and_a_pod_that_was_not_made_was_not(creations, monkeypatch):
    late = [Doubt("mended: not within 5 s")]
    monkeypatch.setattr(certificates, "_mended", lambda *_: (creations, {}, late))
    creations.longest_s = certificates.MENDED_S + 1
    creations.unmade.append("created-0-1 was not made in 60 s")
    for outcome in certificates.lose_the_bundle(None):
        assert [isinstance(each, Doubt) for each in outcome.lost] == [True, False, True]


def watch(monkeypatch, answers):
    """What `_watching` saw of an Api that gives, or raises, these answers; the last of them again and again."""
    left, last = iter(answers), threading.Event()

    def get(_):
        if (answer := next(left, answers[-1])) is answers[-1]:
            last.set()
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(certificates, "LOOK_S", 0.001)
    monkeypatch.setattr(certificates, "Api", lambda _: contextlib.nullcontext(SimpleNamespace(get=get)))
    monkeypatch.setattr(certificates, "_bundle", lambda _: b"a CA")
    monkeypatch.setattr(certificates, "decode", lambda _: MagicMock())
    monkeypatch.setattr(scenario, "webhooks", lambda _: [])
    cluster = MagicMock()
    cluster.node(1).popen.return_value.communicate.return_value = ("at noon: refused\n7\n", "")
    with certificates._watching(cluster) as watched:
        assert last.wait(20)
    return watched


def test_what_is_served_is_looked_at_all_the_time(monkeypatch):
    watched = watch(monkeypatch, [{"data": {}}] * 3)
    assert watched.looks >= 1
    assert (watched.bundles, watched.handshakes, watched.failures) == ({b"a CA"}, 7, ["at noon: refused"])


def test_a_watcher_that_ended_early_is_told(monkeypatch):
    with pytest.raises(ClusterError, match=r"after 1 looks nobody looked at Secret and caBundle: .*no answer"):
        watch(monkeypatch, [{"data": {}}, ClusterError("no answer")])
