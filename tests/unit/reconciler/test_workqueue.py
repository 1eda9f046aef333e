"""Pods are reconciled by priority, and each once however often it is added."""

from reconciler.workqueue import Priority, WorkQueue


async def test_what_somebody_asked_for_comes_before_what_somebody_changed():
    queue = WorkQueue()
    queue.add("perhaps", Priority.RESYNC)
    queue.add("changed", Priority.DRIFT)
    queue.add("first", Priority.REQUESTED)
    queue.add("second", Priority.REQUESTED)
    assert [await queue.get() for _ in range(4)] == ["first", "second", "changed", "perhaps"]


async def test_naming_a_pod_again_makes_it_more_urgent_and_not_twice():
    queue = WorkQueue()
    queue.add("again", Priority.RESYNC)
    queue.add("other", Priority.DRIFT)
    queue.add("again", Priority.REQUESTED)
    queue.add("again", Priority.DRIFT)
    queue.add("last", Priority.RESYNC)
    assert [await queue.get() for _ in range(3)] == ["again", "other", "last"]


async def test_a_pod_that_was_taken_can_be_named_again():
    queue = WorkQueue()
    for _ in range(2):
        queue.add("one", Priority.REQUESTED)
        queue.add("one", Priority.RESYNC)
        assert await queue.get() == "one"
