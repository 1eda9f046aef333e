"""Pods are looked at by urgency, and each once however often it is named."""

from reconciler.due import Due, Urgency


async def test_what_somebody_asked_for_comes_before_what_somebody_changed():
    due = Due()
    due.add("perhaps", Urgency.PERHAPS)
    due.add("changed", Urgency.CHANGED)
    due.add("first", Urgency.ASKED)
    due.add("second", Urgency.ASKED)
    assert [await due.next() for _ in range(4)] == ["first", "second", "changed", "perhaps"]


async def test_naming_a_pod_again_makes_it_more_urgent_and_not_twice():
    due = Due()
    due.add("again", Urgency.PERHAPS)
    due.add("other", Urgency.CHANGED)
    due.add("again", Urgency.ASKED)
    due.add("again", Urgency.CHANGED)
    due.add("last", Urgency.PERHAPS)
    assert [await due.next() for _ in range(3)] == ["again", "other", "last"]


async def test_a_pod_that_was_taken_can_be_named_again():
    due = Due()
    for _ in range(2):
        due.add("one", Urgency.ASKED)
        due.add("one", Urgency.PERHAPS)
        assert await due.next() == "one"
