"""The flags of `serve`: durations, and what does not go together."""

import argparse
from datetime import timedelta

import pytest

from tests.unit.webhook.running_server import parsed
from webhook.common.endpoint import ConfigurationError
from webhook.settings import duration, settings_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("2m", 120), ("36h", 129_600), ("3650d", 315_360_000), ("999999d", 86_399_913_600)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "0s", "1.5h", "-1s", "1w", "1s ", "\uff11s", "1000000d"])
def test_anything_else_is_told_with_an_example(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="as 90s or 365d"):
        duration(text)


def test_the_defaults_go_together_and_are_those_of_the_readme() -> None:
    settings = settings_of(parsed())
    assert settings.lifetimes.authority == timedelta(days=3650)
    assert settings.lifetimes.serving == timedelta(days=365)
    assert settings.lifetimes.overlap == timedelta(days=1)
    assert settings.certificates is None


def test_lifetimes_can_be_so_short_that_a_test_sees_a_rotation() -> None:
    settings = settings_of(
        parsed("--ca-lifetime=45s", "--certificate-lifetime=45s", "--overlap=5s", "--recheck-seconds=2")
    )
    assert settings.lifetimes.overlap == timedelta(seconds=5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--recheck-seconds=0"], "must be more than 0"),
        (["--certificate-lifetime=5m"], r"two times --recheck-seconds \(120 s\) must fit into a third of .*\(100 s\)"),
        (["--overlap=119s"], r"--overlap \(119 s\) must be at least two times --recheck-seconds \(120 s\)"),
        (["--ca-lifetime=4d"], r"\(86520 s\) must fit into 7/30 of --ca-lifetime \(80640 s\)"),
    ],
)
def test_lifetimes_that_leave_no_time_to_rotate_are_refused_with_the_figures(arguments: list[str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        settings_of(parsed(*arguments))


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--port=70000", "'70000' is no port"),
        ("--health-port=-5", "'-5' is no port"),
        ("--drain-seconds=nan", "'nan' is no time"),
        ("--linger-seconds=-3", "'-3' is no time"),
        ("--recheck-seconds=a", "'a' is no time"),
        ("--also-named=müller.example", "'müller.example' is neither a DNS name"),
        ("--also-named=a:8443", "'a:8443' is neither a DNS name"),
        ("--also-named=", "'' is neither a DNS name"),
        ("--also-named=Webhook.example", "'Webhook.example' is neither a DNS name"),
        ("--also-named=webhook.example.", "'webhook.example.' is neither a DNS name"),
        ("--also-named=webhook..example", "'webhook..example' is neither a DNS name"),
        ("--also-named=-.example", "'-.example' is neither a DNS name"),
        ("--also-named=a.example\n", r"'a.example\n' is neither a DNS name"),
        ("--also-named=fe80::1%eth0", "'fe80::1%eth0' is neither a DNS name"),
        (f"--also-named={'a' * 64}", f"'{'a' * 64}' is neither a DNS name"),
        (f"--also-named={'a.' * 126}bc", f"'{'a.' * 126}bc' is neither a DNS name"),
    ],
)
def test_flags_that_are_no_ports_times_and_names_are_refused(
    argument: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(argument)
    assert f"argument {argument.split('=', maxsplit=1)[0]}: {says}" in capsys.readouterr().err


def test_the_webhook_can_be_called_by_further_names_and_addresses() -> None:
    longest = "a." * 126 + "b"
    further = ["webhook.example", "xn--mller-kva.example", "192.0.2.1", "2001:DB8:0::1", longest]
    settings = settings_of(parsed(*(f"--also-named={name}" for name in further)))
    assert settings.names[0] == "webhook.ipvlan-bandwidth.svc"
    assert settings.names[3:] == ("webhook.example", "xn--mller-kva.example", "192.0.2.1", "2001:db8::1", longest)
