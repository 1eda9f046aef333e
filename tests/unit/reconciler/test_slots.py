"""Slots: few, used again, and never two Pods in one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.kernel.errors import NoSlotLeftError
from reconciler.slot_allocator import SlotAllocator
from reconciler.slots import Assignment, SlotOwner, SlotTable

owners = st.builds(SlotOwner, st.sampled_from(["a", "b", "c", "d"]), st.sampled_from([1, 2]))
actions = st.lists(st.tuples(st.sampled_from(["assign", "free"]), owners))


@given(actions)
def test_no_two_owners_share_a_slot_and_no_generation_comes_twice(done: list[tuple[str, SlotOwner]]) -> None:
    table = SlotTable(8)
    seen: dict[int, SlotOwner] = {}
    for action, owner in done:
        if action == "free":
            table.free(owner)
            continue
        known = owner in table.taken
        assignment = table.assign(owner)
        assert assignment is not None
        assert assignment.generation > 0
        assert known or assignment.generation not in seen
        seen[assignment.generation] = owner
        slots = [taken.slot for taken in table.taken.values()]
        assert len(slots) == len(set(slots))
        assert min(slots) >= 1


def test_the_lowest_free_slot_is_taken() -> None:
    table = SlotTable(3)
    for uid in "abc":
        table.assign(SlotOwner(uid, 1))
    table.free(SlotOwner("b", 1))
    assert table.assign(SlotOwner("d", 1)) == Assignment(2, 4)


def test_assigning_again_changes_nothing() -> None:
    table = SlotTable(1)
    first = table.assign(SlotOwner("a", 1))
    assert table.assign(SlotOwner("a", 1)) == first
    assert table == SlotTable(1, {SlotOwner("a", 1): Assignment(1, 1)}, 1)


def test_a_full_table_says_so() -> None:
    table = SlotTable(1)
    table.assign(SlotOwner("a", 1))
    assert table.assign(SlotOwner("b", 1)) is None
    with pytest.raises(NoSlotLeftError, match=r"all 1 slots are taken.*raise the reconciler's --slots"):
        SlotAllocator(None, table, {}).assign(SlotOwner("b", 1), "/run/netns/b")


def test_a_generation_is_newer_than_any_that_was_found() -> None:
    table = SlotTable(4)
    table.adopt(SlotOwner("a", 1), Assignment(2, 41))
    assert table.assign(SlotOwner("b", 1)) == Assignment(1, 42)
