"""Exponential backoff: how long to wait before another try. Pure."""

from typing import Final

# A program may fail for weeks: beyond a thousand doublings, a float overflows.
_MOST_DOUBLINGS: Final = 30


def delay_s(failures: int, first_s: float, longest_s: float) -> float:
    """The wait after so many failures in a row, 1 and up: `first_s`, doubled each time, and `longest_s` at most."""
    return min(first_s * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), longest_s)
