"""Pods that started while nobody could limit them."""

from reconciler.latecomers import Latecomers, notice

A, B = ("u1", "/run/netns/a"), ("u2", "/run/netns/b")


def found(*keys):
    latecomers = Latecomers()
    latecomers.found(keys)
    return latecomers


def test_a_pod_found_running_ran_unlimited_from_its_start_to_its_first_limit():
    latecomers = found(A)
    latecomers.looked_at(A, newly_limited=True, now_s=130.0, there_since_s=0.0)
    assert latecomers.unlimited_s(A, None) == 0, "when it started is not known yet"
    assert latecomers.unlimited_s(A, 100.0) == 30
    assert latecomers.unlimited_s(A, 100.0) == 0, "told once"


def test_a_pod_limited_before_its_first_container_started_never_ran_unlimited():
    latecomers = found(A)
    latecomers.looked_at(A, newly_limited=True, now_s=90.0, there_since_s=0.0)
    assert latecomers.unlimited_s(A, 100.0) == 0


def test_neither_a_pod_that_the_hook_told_of_nor_one_whose_limit_came_later_is_late():
    latecomers = found(A)
    latecomers.looked_at(B, newly_limited=True, now_s=130.0, there_since_s=0.0)
    latecomers.looked_at(A, newly_limited=False, now_s=130.0, there_since_s=0.0)
    latecomers.looked_at(A, newly_limited=True, now_s=140.0, there_since_s=0.0)
    assert latecomers.unlimited_s(A, 100.0) == latecomers.unlimited_s(B, 100.0) == 0


def test_a_sandbox_that_is_gone_is_forgotten():
    latecomers = found(A, B)
    latecomers.looked_at(A, newly_limited=True, now_s=130.0, there_since_s=0.0)
    for key in (A, B):
        latecomers.forget(key)
    latecomers.looked_at(B, newly_limited=True, now_s=130.0, there_since_s=0.0)
    assert latecomers.unlimited_s(A, 100.0) == latecomers.unlimited_s(B, 100.0) == 0


def test_the_owner_is_told_for_how_long_and_why():
    told = notice(29.4)
    assert (told.reason, told.type) == ("RanUnlimited", "Warning")
    assert "for 30 s at most" in told.message


def test_one_whose_containers_have_ended_ran_unlimited_only_where_it_is_known_since_when():
    latecomers = found(A)
    latecomers.found([B], since_s=100.0)
    for key in (A, B):
        latecomers.looked_at(key, newly_limited=True, has_ended=True, now_s=130.0, there_since_s=0.0)
    assert (latecomers.unlimited_s(A, 90.0), latecomers.unlimited_s(B, 90.0)) == (0, 30)


def test_a_sandbox_that_is_made_anew_is_counted_from_its_own_beginning():
    latecomers = Latecomers()
    latecomers.found([A], since_s=1000.0)
    latecomers.found([A])
    latecomers.looked_at(A, newly_limited=True, now_s=1002.0, there_since_s=0.0)
    assert latecomers.unlimited_s(A, 100.0) == 2


def test_a_sandbox_is_not_counted_from_before_it_was_there_whatever_a_former_ones_containers_say():
    latecomers = found(A)
    latecomers.looked_at(A, newly_limited=True, now_s=1002.0, there_since_s=1000.0)
    assert latecomers.unlimited_s(A, 100.0) == 2
    latecomers = found(A)
    latecomers.looked_at(A, newly_limited=True, now_s=1002.0, there_since_s=1003.0)
    assert latecomers.unlimited_s(A, 100.0) == 0, "the clock was set back meanwhile"
