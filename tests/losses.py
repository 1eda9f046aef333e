"""What a test says was lost, told apart from what a machine that is too slow may have brought about by itself."""

from collections.abc import Iterable


class Doubt(str):
    """A loss that slowness alone may have brought about: it counts as one, but a test may try once more."""

    __slots__ = ()


class LostError(AssertionError):
    """Something was lost that may be lost at no attempt: `make test` runs no test again that raises this."""


def nothing_lost(lost: Iterable[str]) -> None:
    """Raise LostError for a loss; a mere AssertionError where there are doubts alone."""
    told = [*lost]
    if not all(isinstance(each, Doubt) for each in told):
        raise LostError("; ".join(told))
    assert not told, "; ".join(told)
