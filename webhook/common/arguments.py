"""Types of flags that both programs have, with a message that says what is wrong. Pure."""

import argparse
from typing import Final

_LOG_LEVEL: Final = "info"
_LOG_LEVELS: Final = ("debug", "info", "warning", "error")
_HIGHEST_PORT: Final = 65_535
_MOST_SECONDS: Final = 1_000_000  # a longer time is a typo, and beyond some length no clock can hold it


def whole(text: str, least: int, most: int, what: str) -> int:
    """A flag's value as a whole number within bounds; ArgumentTypeError otherwise, with `what` in its message."""
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


def add_log_level(parser: argparse.ArgumentParser, what: str, *, default: str = _LOG_LEVEL) -> None:
    """Add the flag for what is logged."""
    parser.add_argument("--log-level", default=default, choices=_LOG_LEVELS, help=f"{what} (default: {_LOG_LEVEL})")


def seconds(text: str) -> float:
    """A time in seconds, with a fraction or without; ArgumentTypeError otherwise."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= _MOST_SECONDS:  # also true of nan
        raise argparse.ArgumentTypeError(f"{text!r} is no time: a number of seconds from 0 to {_MOST_SECONDS}")
    return value
