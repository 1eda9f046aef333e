"""Pods that started while nobody could limit them."""

from reconciler.ran_unlimited import RanUnlimited, notice
from reconciler.sandboxes import Key

A, B = Key("u1", "/run/netns/a"), Key("u2", "/run/netns/b")


def found(*keys):
    ran_unlimited = RanUnlimited()
    ran_unlimited.add(keys)
    return ran_unlimited


def test_a_pod_found_running_ran_unlimited_from_its_start_to_its_first_limit():
    ran_unlimited = found(A)
    ran_unlimited.on_reconciled(A, newly_limited=True, now_s=130.0, netns_created_s=0.0)
    assert ran_unlimited.unlimited_s(A, None) == 0, "when it started is not known yet"
    assert ran_unlimited.unlimited_s(A, 100.0) == 30
    assert ran_unlimited.unlimited_s(A, 100.0) == 0, "told once"


def test_a_pod_limited_before_its_first_container_started_never_ran_unlimited():
    ran_unlimited = found(A)
    ran_unlimited.on_reconciled(A, newly_limited=True, now_s=90.0, netns_created_s=0.0)
    assert ran_unlimited.unlimited_s(A, 100.0) == 0


def test_neither_a_pod_that_the_hook_told_of_nor_one_whose_limit_came_later_is_late():
    ran_unlimited = found(A)
    ran_unlimited.on_reconciled(B, newly_limited=True, now_s=130.0, netns_created_s=0.0)
    ran_unlimited.on_reconciled(A, newly_limited=False, now_s=130.0, netns_created_s=0.0)
    ran_unlimited.on_reconciled(A, newly_limited=True, now_s=140.0, netns_created_s=0.0)
    assert ran_unlimited.unlimited_s(A, 100.0) == ran_unlimited.unlimited_s(B, 100.0) == 0


def test_a_sandbox_that_is_gone_is_forgotten():
    ran_unlimited = found(A, B)
    ran_unlimited.on_reconciled(A, newly_limited=True, now_s=130.0, netns_created_s=0.0)
    for key in (A, B):
        ran_unlimited.forget(key)
    ran_unlimited.on_reconciled(B, newly_limited=True, now_s=130.0, netns_created_s=0.0)
    assert ran_unlimited.unlimited_s(A, 100.0) == ran_unlimited.unlimited_s(B, 100.0) == 0


def test_the_owner_is_told_for_how_long_and_why():
    told = notice(29.4)
    assert (told.reason, told.type) == ("RanUnlimited", "Warning")
    assert "for 30 s at most" in told.message


def test_one_whose_containers_have_ended_ran_unlimited_only_where_it_is_known_since_when():
    ran_unlimited = found(A)
    ran_unlimited.add([B], since_s=100.0)
    for key in (A, B):
        ran_unlimited.on_reconciled(key, newly_limited=True, has_ended=True, now_s=130.0, netns_created_s=0.0)
    assert (ran_unlimited.unlimited_s(A, 90.0), ran_unlimited.unlimited_s(B, 90.0)) == (0, 30)


def test_a_sandbox_that_is_made_anew_is_counted_from_its_own_beginning():
    ran_unlimited = RanUnlimited()
    ran_unlimited.add([A], since_s=1000.0)
    ran_unlimited.add([A])
    ran_unlimited.on_reconciled(A, newly_limited=True, now_s=1002.0, netns_created_s=0.0)
    assert ran_unlimited.unlimited_s(A, 100.0) == 2


def test_a_sandbox_is_not_counted_from_before_it_was_there_whatever_a_former_ones_containers_say():
    ran_unlimited = found(A)
    ran_unlimited.on_reconciled(A, newly_limited=True, now_s=1002.0, netns_created_s=1000.0)
    assert ran_unlimited.unlimited_s(A, 100.0) == 2
    ran_unlimited = found(A)
    ran_unlimited.on_reconciled(A, newly_limited=True, now_s=1002.0, netns_created_s=1003.0)
    assert ran_unlimited.unlimited_s(A, 100.0) == 0, "the clock was set back meanwhile"
