"""The wait between two tries: doubled up to a cap, however many there were."""

from webhook.common.backoff import delay_s


def test_it_doubles_up_to_the_longest_and_stays_there_for_ever() -> None:
    assert [delay_s(failures, 0.5, 15.0) for failures in (1, 2, 3, 5, 6, 7)] == [0.5, 1.0, 2.0, 8.0, 15.0, 15.0]
    assert delay_s(10**6, 0.5, 15.0) == 15.0
