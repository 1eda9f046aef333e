"""Slots: few, used again, and never two Pods in one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.slots import Assignment, NoFreeSlotError, SlotTable, Tenant

tenants = st.builds(Tenant, st.sampled_from(["a", "b", "c", "d"]), st.sampled_from([1, 2]))
actions = st.lists(st.tuples(st.sampled_from(["assign", "free"]), tenants))


@given(actions)
def test_no_two_tenants_share_a_slot_and_no_generation_comes_twice(done: list[tuple[str, Tenant]]) -> None:
    table = SlotTable(8)
    seen: dict[int, Tenant] = {}
    for action, tenant in done:
        if action == "free":
            table = table.free(tenant)
            continue
        known = tenant in table.taken
        table, assignment = table.assign(tenant)
        assert assignment.generation > 0
        assert known or assignment.generation not in seen
        seen[assignment.generation] = tenant
        slots = [taken.slot for taken in table.taken.values()]
        assert len(slots) == len(set(slots))
        assert min(slots) >= 1


def test_the_lowest_free_slot_is_taken() -> None:
    table = SlotTable(3)
    for uid in "abc":
        table, _ = table.assign(Tenant(uid, 1))
    table, assignment = table.free(Tenant("b", 1)).assign(Tenant("d", 1))
    assert assignment == Assignment(2, 4)


def test_assigning_again_changes_nothing() -> None:
    table, first = SlotTable(1).assign(Tenant("a", 1))
    assert table.assign(Tenant("a", 1)) == (table, first)


def test_a_full_table_says_so() -> None:
    table, _ = SlotTable(1).assign(Tenant("a", 1))
    with pytest.raises(NoFreeSlotError, match="all 1 slots"):
        table.assign(Tenant("b", 1))


def test_a_generation_is_newer_than_any_that_was_found() -> None:
    table = SlotTable(4).adopt(Tenant("a", 1), Assignment(2, 41))
    _, assignment = table.assign(Tenant("b", 1))
    assert assignment == Assignment(1, 42)
