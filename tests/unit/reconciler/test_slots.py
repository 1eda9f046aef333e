"""Slots: few, used again, and never two Pods in one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.slots import Assignment, NoFreeSlotError, SlotOwner, SlotTable

owners = st.builds(SlotOwner, st.sampled_from(["a", "b", "c", "d"]), st.sampled_from([1, 2]))
actions = st.lists(st.tuples(st.sampled_from(["assign", "free"]), owners))


@given(actions)
def test_no_two_owners_share_a_slot_and_no_generation_comes_twice(done: list[tuple[str, SlotOwner]]) -> None:
    table = SlotTable(8)
    seen: dict[int, SlotOwner] = {}
    for action, owner in done:
        if action == "free":
            table = table.free(owner)
            continue
        known = owner in table.taken
        table, assignment = table.assign(owner)
        assert assignment.generation > 0
        assert known or assignment.generation not in seen
        seen[assignment.generation] = owner
        slots = [taken.slot for taken in table.taken.values()]
        assert len(slots) == len(set(slots))
        assert min(slots) >= 1


def test_the_lowest_free_slot_is_taken() -> None:
    table = SlotTable(3)
    for uid in "abc":
        table, _ = table.assign(SlotOwner(uid, 1))
    table, assignment = table.free(SlotOwner("b", 1)).assign(SlotOwner("d", 1))
    assert assignment == Assignment(2, 4)


def test_assigning_again_changes_nothing() -> None:
    table, first = SlotTable(1).assign(SlotOwner("a", 1))
    assert table.assign(SlotOwner("a", 1)) == (table, first)


def test_a_full_table_says_so() -> None:
    table, _ = SlotTable(1).assign(SlotOwner("a", 1))
    with pytest.raises(NoFreeSlotError, match="all 1 slots"):
        table.assign(SlotOwner("b", 1))


def test_a_generation_is_newer_than_any_that_was_found() -> None:
    table = SlotTable(4).adopt(SlotOwner("a", 1), Assignment(2, 41))
    _, assignment = table.assign(SlotOwner("b", 1))
    assert assignment == Assignment(1, 42)
