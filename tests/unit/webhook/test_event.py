"""Events as the API server takes them and `kubectl describe` finds them."""

from datetime import UTC, datetime

from webhook.common.event import event

POD = {"kind": "Pod", "name": "web-0", "namespace": "shop", "uid": "u1"}
NODE = {"kind": "Node", "name": "n" * 253, "uid": "n"}
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_an_event_names_what_it_is_about_so_that_describe_finds_it():
    said = {"event_type": "Normal", "reason": "BandwidthLimited", "message": "100M"}
    told = event(POD, **said, instance="node1", host="node1", now=NOW, suffix="abc")
    assert told["metadata"] == {"name": "web-0.abc", "namespace": "shop"}
    assert told["involvedObject"] == {"apiVersion": "v1", **POD}
    assert (told["type"], told["reason"], told["message"]) == ("Normal", "BandwidthLimited", "100M")
    assert told["firstTimestamp"] == told["lastTimestamp"] == "2026-01-02T03:04:05Z"
    assert told["source"] == {"component": "ipvlan-bandwidth", "host": "node1"}


def test_what_has_no_namespace_is_told_of_in_default_and_long_names_and_messages_are_cut():
    said = {"event_type": "Warning", "reason": "CannotShape", "message": "ü" * 2000}
    told = event(NODE, **said, instance="n", now=NOW, suffix="abc")
    assert told["metadata"] == {"name": f"{'n' * 200}.abc", "namespace": "default"}
    assert told["source"] == {"component": "ipvlan-bandwidth"}
    assert len(told["message"].encode()) == 1023, "of two bytes each, but for the last, which has three"
    assert told["message"].endswith("ü…")
    whole = event(NODE, **{**said, "message": "ü" * 512}, instance="n", now=NOW, suffix="abc")
    assert whole["message"] == "ü" * 512
