"""A Pod is read from any JSON without a crash."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired import DesiredLimits, desired_limits
from reconciler.nri.messages import PodSandbox
from reconciler.pods import PodView, from_api, from_runtime, selector, with_limits
from webhook.common.contract import Direction, Limits, Quantity

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("metadata", "spec", "status", "labels", "annotations", "uid", "name", "namespace", "phase"),
                    *("state", "lastState", "restartCount", "startTime", "containerStatuses", "terminated"),
                ]
            ),
            inner,
            max_size=6,
        )
    ),
)


def pod(**metadata):
    base = {"uid": "u1", "namespace": "shop", "name": "web-0"}
    return {"metadata": {**base, **metadata}, "spec": {}, "status": {"phase": "Running"}}


def test_an_admitted_pod_with_limits():
    view = from_api(
        pod(
            labels={"ipvlan-bandwidth.io/managed": "true"},
            annotations={"kubernetes.io/ingress-bandwidth": "100M", "kubernetes.io/egress-bandwidth": "20M"},
        )
    )
    assert view == PodView("u1", "shop", "web-0", managed=True, ingress="100M", egress="20M")
    assert view.annotated
    assert view.asked(Direction.INGRESS) == "100M"
    assert view.asked(Direction.EGRESS) == "20M"
    assert str(view) == "shop/web-0"


def test_pods_of_a_node_are_asked_for_without_those_that_have_finished():
    assert selector("n1") == "spec.nodeName=n1,status.phase!=Succeeded,status.phase!=Failed"


def test_a_pod_without_annotations_asks_for_nothing():
    view = from_api(pod())
    assert view == PodView("u1", "shop", "web-0")
    assert not view.annotated


def test_of_an_annotation_no_more_is_kept_than_tells_that_it_is_too_long():
    written = {"kubernetes.io/ingress-bandwidth": "1" * 262_000 + "😀", "kubernetes.io/egress-bandwidth": "1" * 64}
    view = from_api(pod(labels={"ipvlan-bandwidth.io/managed": "true"}, annotations=written))
    assert view
    assert (len(view.ingress), len(view.egress)) == (65, 64)
    assert "is longer than the maximum of 64 characters" in desired_limits(view, Limits()).notices[0].message


def test_host_network_is_seen():
    raw = pod()
    raw["spec"]["hostNetwork"] = True
    assert from_api(raw).host_network


@pytest.mark.parametrize("limits", [Limits(ingress=Quantity(1_500_000)), Limits(egress=Quantity(1234))])
def test_a_pod_can_be_seen_as_asking_for_limits_that_were_found(limits):
    view = with_limits(from_api(pod()), limits)
    assert desired_limits(view, Limits()) == DesiredLimits(limits)


def test_the_start_of_the_first_container_is_seen():
    raw = pod()
    assert from_api(raw).started_s is None
    raw["status"]["initContainerStatuses"] = [
        {"state": {"waiting": {"reason": "PodInitializing"}}},
        {"state": {"terminated": {"startedAt": "2001-09-09T01:46:40Z"}}},
        {"state": {"terminated": {"startedAt": "sometime"}}},
    ]
    raw["status"]["containerStatuses"] = [{"state": {"running": {"startedAt": "2001-09-09T01:46:50Z"}}}]
    assert from_api(raw).started_s == 1_000_000_000


AT = "2001-09-09T01:46:{:02}Z"
SECOND = 1_000_000_000 - 40


def restarted(restarts, *, now=None, before=None, waits=False):
    state = {"waiting": {"reason": "CrashLoopBackOff"}} if waits else {"running": {"startedAt": AT.format(now)}}
    last = {} if before is None else {"terminated": {"startedAt": AT.format(before), "finishedAt": AT.format(59)}}
    return {"restartCount": restarts, "state": state, "lastState": last}


@pytest.mark.parametrize(
    ("container", "began"),
    [
        pytest.param(restarted(1, now=50, before=20), 20, id="once"),
        pytest.param(restarted(0, before=20, waits=True), 20, id="it crashed, and waits"),
        pytest.param(restarted(2, now=50, before=40), 5, id="twice, so the first start is not told"),
        pytest.param(restarted(1, before=20, waits=True), 5, id="once, and it waits"),
        pytest.param(restarted(1, now=50), 5, id="its last state is gone"),
        pytest.param(restarted("2", now=50, before=40), 40, id="a count of another shape"),
    ],
)
def test_the_start_of_containers_that_were_restarted_is_seen_or_a_time_before_it(container, began):
    raw = pod()
    raw["status"] = {"startTime": AT.format(5), "containerStatuses": [restarted(0, now=55), container]}
    assert from_api(raw).started_s == SECOND + began


def test_the_earliest_start_that_is_told_counts_where_nothing_says_since_when_the_pod_is_there():
    raw = pod()
    raw["status"]["containerStatuses"] = [restarted(7, now=50, before=40)]
    assert from_api(raw).started_s == SECOND + 40


FAILED = {"reason": "StartError", "startedAt": "1970-01-01T00:00:00Z", "finishedAt": AT.format(30)}


@pytest.mark.parametrize("state", ["state", "lastState"])
def test_a_start_that_failed_is_none(state):
    raw = pod()
    container = {"restartCount": 0, state: {"terminated": FAILED}}
    raw["status"] = {"startTime": AT.format(5), "containerStatuses": [container]}
    assert from_api(raw).started_s is None


def test_a_start_that_failed_is_one_of_those_that_are_told():
    raw = pod()
    container = {**restarted(1, now=50), "lastState": {"terminated": FAILED}}
    raw["status"] = {"startTime": AT.format(5), "containerStatuses": [container]}
    assert from_api(raw).started_s == SECOND + 50


def test_a_mirror_pod_is_no_concern_of_ours():
    assert from_api(pod(annotations={"kubernetes.io/config.mirror": "x"})) is None


@pytest.mark.parametrize(
    ("annotations", "static"),
    [({}, False), ({"kubernetes.io/config.source": "api"}, False), ({"kubernetes.io/config.source": "file"}, True)],
)
def test_kubelet_says_by_the_runtime_which_pods_are_its_own(annotations, static):
    told = PodSandbox("s1", "web-0", "u1", "shop", annotations=annotations, netns_path="/run/netns/x")
    assert from_runtime(told).static is static


def test_a_pod_without_a_name_is_no_pod():
    assert from_api(pod(name=None)) is None


def test_values_of_wrong_types_count_as_absent():
    view = from_api(pod(annotations={"kubernetes.io/ingress-bandwidth": 5}, labels=["managed"]))
    assert view == PodView("u1", "shop", "web-0")


@given(JSON)
def test_any_json_is_read(value):
    from_api(value)


def test_the_runtime_tells_of_a_pod_on_the_hosts_network_by_an_empty_path():
    assert from_runtime(PodSandbox("s1", "web-0", "u1", "shop")).host_network
    assert not from_runtime(PodSandbox("s1", "web-0", "u1", "shop", netns_path="/run/netns/x")).host_network


@pytest.mark.parametrize(
    ("status", "running"),
    [
        ({}, False),
        ({"containerStatuses": [{"state": {"terminated": {}}}, {"state": {"waiting": {}}}]}, False),
        ({"containerStatuses": [{"state": {"running": None}}, "nonsense"]}, False),
        ({"containerStatuses": [{"state": {"terminated": {}}}, {"state": {"running": {}}}]}, True),
        ({"initContainerStatuses": [{"state": {"running": {}}}], "containerStatuses": None}, True),
    ],
)
def test_a_pod_runs_while_one_of_its_containers_does(status, running):
    view = from_api({**pod(), "status": status})
    assert view
    assert view.running is running


@pytest.mark.parametrize(
    ("states", "ended"),
    [([], False), (["terminated"], True), (["terminated"] * 2, True), (["terminated", "waiting"], False)],
)
def test_a_pod_has_ended_when_it_is_deleted_and_all_of_its_containers_have(states, ended):
    status = {"containerStatuses": [{"state": {state: {}}} for state in states]}
    view, deleted = ({**pod(), "status": status} for _ in range(2))
    deleted["metadata"] = {**deleted["metadata"], "deletionTimestamp": "2001-09-09T01:46:40Z"}
    assert [from_api(each).ended for each in (view, deleted)] == [False, ended]
