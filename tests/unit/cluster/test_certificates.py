"""What counts as lost while the webhook's certificates have bad days; the cluster is a stand-in."""

import contextlib

import pytest

from tests.cluster import certificates, scenario
from tests.cluster.creations import Creations


@pytest.fixture
def creations(monkeypatch):
    """What the stand-in says became of the Pods."""
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
