"""Types of flags that both programs have, with a message that says what is wrong. Pure."""

import argparse
from typing import Final

_HIGHEST_PORT: Final = 65_535
_MOST_SECONDS: Final = 1_000_000  # what is longer is a slip of the pen, and at some length no clock's any more


def whole(text: str, least: int, most: int, what: str) -> int:
    """The whole number between bounds that a flag's value says; ArgumentTypeError otherwise, which says of `what`."""
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no {what}: a whole number from {least} to {most}")
    return value


def port(text: str) -> int:
    """A port of TCP; ArgumentTypeError otherwise."""
    return whole(text, 1, _HIGHEST_PORT, "port")


def add_port(parser: argparse.ArgumentParser, name: str, default: int, what: str) -> None:
    """Add a flag for a port."""
    parser.add_argument(name, type=port, default=default, metavar="PORT", help=f"{what} (default: %(default)s)")


def seconds(text: str) -> float:
    """A time in seconds, with a fraction or without; ArgumentTypeError otherwise."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= _MOST_SECONDS:  # so also of nan
        raise argparse.ArgumentTypeError(f"{text!r} is no time: a number of seconds from 0 to {_MOST_SECONDS}")
    return value
