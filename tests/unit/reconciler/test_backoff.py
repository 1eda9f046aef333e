"""A Pod that changes its own network again and again is reconciled less often, and within a second all the same."""

from hypothesis import given
from hypothesis import strategies as st

from reconciler.backoff import FIRST_DELAY_S, MAX_DELAY_S, RESET_AFTER_S, Backoff


def test_the_first_changes_are_answered_at_once_and_the_next_ones_ever_later():
    backoff = Backoff(MAX_DELAY_S)
    assert [backoff.delay_s("a", 1.0) for _ in range(7)] == [0.1, 0.1, 0.2, 0.4, 0.8, 0.8, 0.8]


def test_each_pod_has_a_backoff_of_its_own():
    backoff = Backoff(MAX_DELAY_S)
    for _ in range(9):
        backoff.delay_s("a", 1.0)
    assert backoff.delay_s("b", 1.0) == FIRST_DELAY_S


def test_a_pod_that_was_calm_for_a_while_is_answered_at_once_again():
    backoff = Backoff(MAX_DELAY_S)
    for _ in range(9):
        backoff.delay_s("a", 1.0)
    assert backoff.delay_s("a", 1.0 + RESET_AFTER_S) == MAX_DELAY_S
    assert backoff.delay_s("a", 1.1 + 2 * RESET_AFTER_S) == FIRST_DELAY_S
    backoff.forget("a")
    backoff.forget("a")
    assert backoff.delay_s("a", 1.2 + 2 * RESET_AFTER_S) == FIRST_DELAY_S


@given(st.lists(st.floats(0, 100), max_size=50), st.floats(0.1, 5))
def test_no_delay_is_shorter_than_the_first_or_longer_than_the_most(gaps, most):
    backoff, now = Backoff(most), 0.0
    for gap in gaps:
        now += gap
        assert FIRST_DELAY_S <= backoff.delay_s("a", now) <= most
