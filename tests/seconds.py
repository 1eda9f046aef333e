"""The seconds of a transfer beside its limit, on a machine that stalls. Pure.

What a receiver could not read in one second it reads in the next, and a flow that was held up for a moment is not slow.
"""

import math
from collections.abc import Sequence

LATE_S = 0.1
"""A receiver that had to wait for the one CPU of its node reads so much of what has come later, in seconds."""


def above(shares: Sequence[float], most: float, late_s: float = LATE_S) -> tuple[int, ...]:
    """The seconds above `most`, a share of the limit; what seconds lacked may come late, `late_s` of it at most."""
    found, late = [], 0.0
    for second, share in enumerate(shares):
        if share - late > most:
            found.append(second)
        late = min(late_s, max(0.0, late + 1 - share))
    return tuple(found)


def is_certainly_above(shares: Sequence[float], most: float) -> bool:
    """Whether more came than the limit lets pass in all seconds so far: no receiver brings that about by being late."""
    return bool(above(shares, most, math.inf))


def with_better_neighbour(seconds: Sequence[float]) -> list[float]:
    """Each as it is, or as the mean of it and its better neighbour, whichever is more."""
    return [
        max(each, (each + max([*seconds[max(0, number - 1) : number], *seconds[number + 1 : number + 2], each])) / 2)
        for number, each in enumerate(seconds)
    ]
