"""The settings of `python -m webhook serve`: flags, their defaults, and what does not go together."""

import argparse
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from certs.credentials import Lifetimes
from webhook.common import arguments
from webhook.common.contract import NAMESPACE
from webhook.common.endpoint import ConfigurationError

# The manifests' objects in NAMESPACE, and the MutatingWebhookConfiguration, which is in none.
SERVICE: Final = "webhook"
DEPLOYMENT: Final = "webhook"
SECRET: Final = "webhook-certs"  # noqa: S105 - the name of an object
CONFIGURATION: Final = "ipvlan-bandwidth"

_DURATION: Final = re.compile(r"([0-9]{1,6})([smhd])", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LABEL: Final = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_LONGEST_DNS_NAME: Final = 253
_CERTIFICATES: Final = """\
Certificates: without --certificates, the replicas make a CA of their own and a certificate of it in the Secret, renew
both when two thirds of their lifetimes are over, and keep the MutatingWebhookConfiguration's caBundle. A new CA is in
the caBundle for the overlap before it signs. Durations are a number and s, m, h or d: 90s, 36h, 365d."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to listen, by which names to be called, and how patient to be; times in seconds."""

    listen: str | None
    port: int
    health_port: int
    also_named: tuple[str, ...]
    drain_s: float
    linger_s: float
    recheck_s: float
    lifetimes: Lifetimes
    certificates: Path | None

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the webhook is called by; API servers use the first (`webhook.ipvlan-bandwidth.svc`)."""
        base = f"{SERVICE}.{NAMESPACE}"
        return (f"{base}.svc", f"{base}.svc.cluster.local", base, *self.also_named)


def duration(text: str) -> timedelta:
    """The duration that a flag's value says; ArgumentTypeError otherwise."""
    found = _DURATION.fullmatch(text)
    if found is None or not int(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: a whole number and s, m, h or d, as 90s or 365d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def host(text: str) -> str:
    """The DNS name or IP address that a flag's value says; ArgumentTypeError otherwise."""
    with suppress(ValueError):
        if "%" not in text:  # a zone means something on one machine alone, and no certificate has one
            return str(ip_address(text))
    if len(text) > _LONGEST_DNS_NAME or not _DNS_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a DNS name (a-z, 0-9, - and . between, other letters in their form with xn--) nor an "
            "IP address: give what API servers call it by, as webhook.example.com, without scheme and port"
        )
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The settings of `serve`; their defaults are those of the manifests."""
    parser.epilog = _CERTIFICATES
    parser.add_argument("--listen", metavar="ADDRESS", help="address to listen on (default: all)")
    arguments.add_port(parser, "--port", 8443, "HTTPS port for API servers")
    arguments.add_port(parser, "--health-port", 8080, "HTTP port for health and metrics")
    parser.add_argument(
        "--also-named",
        type=host,
        action="append",
        default=[],
        metavar="NAME",
        help="a further DNS name or IP address for its certificate, as for a webhook that runs outside of the cluster; "
        "repeatable",
    )
    _add_certificates(parser)
    parser.add_argument(
        "--drain-seconds",
        type=arguments.seconds,
        default=5.0,
        metavar="SECONDS",
        help="how long to go on answering after SIGTERM at least, and after the last connection, as the Service's "
        "endpoints change (default: %(default)g)",
    )
    parser.add_argument(
        "--linger-seconds",
        type=arguments.seconds,
        default=95.0,
        metavar="SECONDS",
        help="how long after that to wait for the last connection at most; API servers close theirs after 90 s without "
        "use (default: %(default)g)",
    )
    arguments.add_log_level(parser, "debug also logs what is admitted")


def _add_certificates(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--certificates",
        type=Path,
        metavar="FOLDER",
        help="serve with tls.crt and tls.key of this folder, as of a mounted Secret of cert-manager's, and issue none: "
        "Secret and caBundle are left to others then",
    )
    lifetimes = Lifetimes()
    for name, default, what in (
        ("--ca-lifetime", lifetimes.authority, "for how long a CA is valid"),
        ("--certificate-lifetime", lifetimes.serving, "for how long a certificate of it is valid"),
        ("--overlap", lifetimes.overlap, "how long API servers trust a new CA before it signs"),
    ):
        parser.add_argument(
            name, type=duration, default=default, metavar="DURATION", help=f"{what} (default: {default.days}d)"
        )
    parser.add_argument(
        "--recheck-seconds",
        type=arguments.seconds,
        default=60.0,
        metavar="SECONDS",
        help="how often to see that certificate and caBundle are as they should be, beside watching them "
        "(default: %(default)g)",
    )


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings that parsed arguments say; ConfigurationError when they do not go together."""
    settings = Settings(
        listen=args.listen,
        port=args.port,
        health_port=args.health_port,
        also_named=tuple(args.also_named),
        drain_s=args.drain_seconds,
        linger_s=args.linger_seconds,
        recheck_s=args.recheck_seconds,
        lifetimes=Lifetimes(args.ca_lifetime, args.certificate_lifetime, args.overlap),
        certificates=args.certificates,
    )
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    """A certificate renewed in the last third of its lifetime must reach all replicas before that ends."""
    if settings.recheck_s <= 0:
        raise ConfigurationError("--recheck-seconds must be more than 0")
    lifetimes, rechecks = settings.lifetimes, timedelta(seconds=2 * settings.recheck_s)
    if rechecks > lifetimes.serving / 3:
        raise ConfigurationError(
            f"two times --recheck-seconds ({rechecks.total_seconds():g} s) must fit into a third of "
            f"--certificate-lifetime ({lifetimes.serving.total_seconds() / 3:g} s), in which the certificate is renewed"
        )
    if rechecks > lifetimes.overlap:
        raise ConfigurationError(
            f"--overlap ({lifetimes.overlap.total_seconds():g} s) must be at least two times --recheck-seconds "
            f"({rechecks.total_seconds():g} s): all replicas must have heard of a new CA before it signs"
        )
    # Announced when a third of the CA's lifetime is left, the next one signs when a tenth is left at the latest.
    room = lifetimes.authority * 7 / 30
    if lifetimes.overlap + rechecks > room:
        raise ConfigurationError(
            f"--overlap and two times --recheck-seconds ({(lifetimes.overlap + rechecks).total_seconds():g} s) must "
            f"fit into 7/30 of --ca-lifetime ({room.total_seconds():g} s), in which a new CA takes over"
        )
