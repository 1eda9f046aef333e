"""`python -m webhook serve`: credentials, the cache of Namespaces and the two HTTP servers, from start to drain.

In order: health answers first; then the Namespaces are listed while replicas agree on credentials and have API servers
trust them; then HTTPS listens; only then it is ready. On SIGTERM it is unready at once, goes on answering while the
Service's endpoints change, then on the connections that are open, and stops once clients have closed these.
"""

import argparse
import asyncio
import logging
import signal
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from pythonjsonlogger.json import JsonFormatter

from certs.store import CredentialStore, StoreBusyError
from webhook.bounded import BoundedServer
from webhook.certificates import KubeSecret, ReadWrite, serve_with, server_context, trust
from webhook.handlers import Admission, Health, Readiness
from webhook.kubeapi import ApiError, ConfigurationError, KubeApi
from webhook.metrics import Metrics
from webhook.namespaces import Namespaces
from webhook.reflector import ListAndWatch

_NAMESPACES: Final = "the first list of Namespaces"
_CERTIFICATE: Final = "a certificate that API servers trust"

_FIRST_RETRY_S: Final = 0.5
_LONGEST_RETRY_S: Final = 15.0

logger = logging.getLogger(__name__)


class Api(ListAndWatch, ReadWrite, Protocol):
    """The part of KubeApi that is needed here."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to listen, which objects of the cluster are ours, and how patient to be; times in seconds."""

    listen: str | None
    port: int
    health_port: int
    namespace: str
    service: str
    secret: str
    configuration: str
    also_named: tuple[str, ...]
    drain_s: float
    linger_s: float
    recheck_s: float

    @property
    def names(self) -> tuple[str, ...]:
        """The DNS names that the webhook is called by; API servers use the first (`<service>.<namespace>.svc`)."""
        base = f"{self.service}.{self.namespace}"
        return (f"{base}.svc", f"{base}.svc.cluster.local", base, *self.also_named)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The settings of `serve`; their defaults are those of the manifests."""
    parser.add_argument("--listen", metavar="ADDRESS", help="address to listen on (default: all)")
    parser.add_argument("--port", type=int, default=8443, help="HTTPS port for API servers (default: %(default)s)")
    parser.add_argument(
        "--health-port", type=int, default=8080, help="HTTP port for health and metrics (default: %(default)s)"
    )
    parser.add_argument("--namespace", default="ipvlan-bandwidth", help="where it is installed (default: %(default)s)")
    parser.add_argument("--service", default="webhook", help="its Service there (default: %(default)s)")
    parser.add_argument(
        "--secret", default="webhook-certs", help="the Secret to keep its certificates in (default: %(default)s)"
    )
    parser.add_argument(
        "--configuration", default="ipvlan-bandwidth", help="its MutatingWebhookConfiguration (default: %(default)s)"
    )
    parser.add_argument(
        "--also-named",
        action="append",
        default=[],
        metavar="NAME",
        help="a further DNS name for its certificate, as for a webhook that runs outside of the cluster; repeatable",
    )
    parser.add_argument(
        "--drain-seconds",
        type=float,
        default=5.0,
        help="how long to go on answering after SIGTERM, while the Service's endpoints change (default: %(default)s)",
    )
    parser.add_argument(
        "--linger-seconds",
        type=float,
        default=95.0,
        help="how long after that to answer on connections that are still open; API servers close theirs after 90 s "
        "without use (default: %(default)s)",
    )
    parser.add_argument(
        "--recheck-seconds",
        type=float,
        default=60.0,
        help="how often to see that certificate and caBundle are as they should be (default: %(default)s)",
    )
    parser.add_argument(
        "--log-level",
        default="info",
        choices=["debug", "info", "warning", "error"],
        help="debug also logs what is admitted (default: %(default)s)",
    )


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings that parsed arguments say."""
    return Settings(
        listen=args.listen,
        port=args.port,
        health_port=args.health_port,
        namespace=args.namespace,
        service=args.service,
        secret=args.secret,
        configuration=args.configuration,
        also_named=tuple(args.also_named),
        drain_s=args.drain_seconds,
        linger_s=args.linger_seconds,
        recheck_s=args.recheck_seconds,
    )


def main(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. The exit status: 0 after a drain, 1 when it could not start or go on."""
    configure_logging(args.log_level)
    status = 0
    try:
        asyncio.run(_run(settings_of(args)))
    except* (ConfigurationError, OSError) as group:
        for error in group.exceptions:
            logger.error("cannot serve: %s", error)
        status = 1
    return status


def configure_logging(level: str) -> None:
    """One JSON object a line on standard output, with the time in UTC."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        JsonFormatter(
            ["timestamp", "levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp=True,
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for package in ("webhook", "certs"):
        logging.getLogger(package).setLevel(level.upper())


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    api = await KubeApi.connect(user_agent="ipvlan-bandwidth-webhook")
    try:
        await serve(settings, api, stop)
    finally:
        await api.close()


async def serve(settings: Settings, api: Api, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then drain. Raises OSError in an ExceptionGroup when a port cannot be had."""
    namespaces = Namespaces(api)
    metrics = Metrics(lambda: namespaces.restarts)
    readiness = Readiness((_NAMESPACES, _CERTIFICATE))
    admission = BoundedServer(Admission(namespaces, metrics, readiness).handle)
    health = BoundedServer(Health(readiness, metrics).handle)
    try:
        await health.listen(settings.listen, settings.health_port)
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(namespaces.run()),
                tasks.create_task(_follow_sync(namespaces, readiness)),
                tasks.create_task(_keep_certified(settings, api, admission, metrics, readiness)),
            ]
            await stop.wait()
            logger.info("draining for %.1f s", settings.drain_s)
            readiness.draining = True
            await asyncio.sleep(settings.drain_s)
            await admission.drain(settings.linger_s)
            for task in background:
                task.cancel()
        logger.info("stopped")
    finally:
        await admission.close()
        await health.close()


async def _follow_sync(namespaces: Namespaces, readiness: Readiness) -> None:
    await namespaces.synced.wait()
    logger.info("Namespaces are listed: %d with a network label", len(namespaces))
    readiness.done(_NAMESPACES)


async def _keep_certified(
    settings: Settings, api: Api, admission: BoundedServer, metrics: Metrics, readiness: Readiness
) -> None:
    """Serve HTTPS with credentials that are trusted, and see to it from time to time that it stays so.

    The first time they are agreed on, HTTPS begins to listen. Later rounds mend what others did to the Secret or to
    the MutatingWebhookConfiguration, which for instance is deleted and applied again.
    """

    async def trusted(bundle: bytes) -> None:
        await trust(api, settings.configuration, bundle)

    store = CredentialStore(
        KubeSecret(api, settings.namespace, settings.secret), trusted, settings.names, lambda: datetime.now(UTC)
    )
    context = server_context()
    serving: bytes | None = None
    delay = _FIRST_RETRY_S
    while True:
        try:
            credentials = await store.establish()
        except (ApiError, StoreBusyError) as error:
            readiness.waits(_CERTIFICATE, str(error))
            what = "no trusted certificate yet" if serving is None else "cannot check certificate and caBundle"
            logger.warning("%s, again in %.1f s: %s", what, delay, error)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_RETRY_S)
            continue
        delay = _FIRST_RETRY_S
        certificate = credentials.serving.certificate_pem()
        if certificate != serving:
            serve_with(context, credentials)
            expires = credentials.serving.certificate.not_valid_after_utc
            metrics.certificate_expires(expires.timestamp())
            logger.info("serving with a certificate that expires on %s", f"{expires:%Y-%m-%d %H:%M} UTC")
            if serving is None:
                await admission.listen(settings.listen, settings.port, context)
                readiness.done(_CERTIFICATE)
            serving = certificate
        await asyncio.sleep(settings.recheck_s)
