"""Flags that both programs have: what is no value of theirs is told in words."""

import argparse
from collections.abc import Callable

import pytest

from webhook.common import arguments


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (arguments.port, "1", 1),
        (arguments.port, "65535", 65535),
        (arguments.seconds, "0", 0.0),
        (arguments.seconds, "1.5", 1.5),
        (arguments.seconds, "1e6", 1e6),
    ],
)
def test_what_is_within_its_bounds_is_taken(kind: Callable[[str], float], text: str, value: float) -> None:
    assert kind(text) == value


@pytest.mark.parametrize("text", ["70000", "0", "-5", "http", "8080.5", "", "9" * 5000])
def test_what_is_no_port_is_told(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no port: a whole number from 1 to 65535"):
        arguments.port(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-3", "5s", "", "1e300"])
def test_what_is_no_time_is_told(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no time: a number of seconds from 0 to 1000000"):
        arguments.seconds(text)
