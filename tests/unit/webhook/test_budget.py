"""A token bucket: a few at once, then one a period, and never more saved up than the burst."""

from webhook.budget import Budget


def test_a_few_at_once_then_one_a_period() -> None:
    now = 0.0
    budget = Budget(3, 10.0, lambda: now)
    assert [budget.take() for _ in range(4)] == [True, True, True, False]
    now = 9.9
    assert not budget.take()
    now = 10.1
    assert [budget.take(), budget.take()] == [True, False]
    now = 1000.0
    assert [budget.take() for _ in range(4)] == [True, True, True, False]
