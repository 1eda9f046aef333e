"""What becomes of the Pods that `make chaos` creates; the API server is a stand-in."""

import http
import time

import pytest

from tests.cluster.chaos import creator
from tests.cluster.chaos.creator import Creations, Failure, creating
from tests.cluster.scenario import DEFAULT_NETWORK, MANAGED
from tests.losses import Doubt

UNSEEN = {"annotations": {}}
SEEN = {"annotations": {DEFAULT_NETWORK: "kube-system/ipvlan"}, "labels": {MANAGED: "true"}}
HALF = {"annotations": {DEFAULT_NETWORK: "kube-system/ipvlan"}}


@pytest.fixture
def creations_of(monkeypatch):
    """What became of Pods, each of which the API server answers so."""

    def run(status, metadata, *, admitted=True):
        class Api:
            def __init__(self, *_, **__):
                pass

            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

            def call(self, *_):
                return status, {"metadata": metadata, "message": "refused"}

        monkeypatch.setattr(creator, "Api", Api)
        with creating(None, "shop", rate=1000, admitted=admitted) as creations:
            while not creations.tried:
                time.sleep(0.001)
        return creations

    return run


@pytest.mark.parametrize(
    ("metadata", "admitted", "said"),
    [
        (UNSEEN, True, "it was made, but the webhook had not seen it"),
        (HALF, True, "it was made, but the webhook had not seen it"),
        (SEEN, False, "it was made, but the webhook had changed it"),
        (HALF, False, "it was made, but the webhook had changed it"),
    ],
)
def test_a_pod_made_past_the_webhook_is_no_refusal_and_always_lost(creations_of, metadata, admitted, said):
    creations = creations_of(http.HTTPStatus.CREATED, metadata, admitted=admitted)
    assert (creations.made, creations.failures) == (0, [])
    assert creations.amiss[0].why == said
    assert creations.bypassed == creations.lost
    assert creations.bypassed[0].endswith(said)
    assert f"none failed, {creations.tried} made amiss" in str(creations)


@pytest.mark.parametrize(("metadata", "admitted"), [(SEEN, True), (UNSEEN, False)])
def test_a_pod_that_is_as_it_should_be_is_made(creations_of, metadata, admitted):
    creations = creations_of(http.HTTPStatus.CREATED, metadata, admitted=admitted)
    assert creations.made == creations.tried
    assert creations.lost == creations.bypassed == ()


def test_a_refusal_is_a_failure_and_no_bypass(creations_of):
    creations = creations_of(http.HTTPStatus.INTERNAL_SERVER_ERROR, {})
    assert len(creations.failures) == creations.tried
    assert "500 refused" in creations.lost[0]
    assert creations.bypassed == ()


def test_creations_that_fail_are_told_of_with_the_first_ones_words():
    creations = Creations(made=8, seconds=5)
    assert creations.lost == ()
    creations.failures += [Failure(3.0, 0.1, "later"), Failure(1.0, 0.2, "first")]
    assert creations.lost == ("2 of 10 creations, the first at 1.0 s, after 0.2 s: first",)
    assert str(creations).startswith("10 creations at 2 a second, 2 failed")


def test_too_few_creations_to_judge_by_are_told_of():
    assert Creations(made=250, seconds=10).too_few(50) == ()
    assert Creations(made=249, seconds=10).too_few(50) == ("only 249 creations were tried in 10 s at 50 a second",)


def test_what_is_lost_in_another_namespace_says_so_and_a_doubt_stays_one():
    creations = Creations(made=1, failures=[Failure(1.0, 0.2, "first")], seconds=10)
    loss, doubt = creations.lost_elsewhere(50)
    assert (type(loss), type(doubt)) == (str, Doubt)
    assert [loss, doubt] == [
        "in another namespace: 1 of 2 creations, the first at 1.0 s, after 0.2 s: first",
        "in another namespace: only 2 creations were tried in 10 s at 50 a second",
    ]
