"""A token bucket: a few at once, then one a period, and never more saved up than the burst."""

from webhook.common.token_bucket import TokenBucket


def test_a_few_at_once_then_one_a_period() -> None:
    now = 0.0
    bucket = TokenBucket(3, 10.0, lambda: now)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now = 9.9
    assert not bucket.take()
    now = 10.1
    assert [bucket.take(), bucket.take()] == [True, False]
    now = 1000.0
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
