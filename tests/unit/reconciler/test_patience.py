"""A Pod that changes its own network again and again is looked at less often, and within a second all the same."""

from hypothesis import given
from hypothesis import strategies as st

from reconciler.patience import CALM_S, FIRST_S, MOST_S, Patience


def test_the_first_changes_are_answered_at_once_and_the_next_ones_ever_later():
    patience = Patience()
    assert [patience.delay_s("a", 1.0) for _ in range(7)] == [0.1, 0.1, 0.2, 0.4, 0.8, 0.8, 0.8]


def test_each_pod_has_a_patience_of_its_own():
    patience = Patience()
    for _ in range(9):
        patience.delay_s("a", 1.0)
    assert patience.delay_s("b", 1.0) == FIRST_S


def test_a_pod_that_was_calm_for_a_while_is_answered_at_once_again():
    patience = Patience()
    for _ in range(9):
        patience.delay_s("a", 1.0)
    assert patience.delay_s("a", 1.0 + CALM_S) == MOST_S
    assert patience.delay_s("a", 1.1 + 2 * CALM_S) == FIRST_S
    patience.forget("a")
    patience.forget("a")
    assert patience.delay_s("a", 1.2 + 2 * CALM_S) == FIRST_S


@given(st.lists(st.floats(0, 100), max_size=50), st.floats(0.1, 5))
def test_no_delay_is_shorter_than_the_first_or_longer_than_the_most(gaps, most):
    patience, now = Patience(most), 0.0
    for gap in gaps:
        now += gap
        assert FIRST_S <= patience.delay_s("a", now) <= most
