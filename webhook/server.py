"""`python -m webhook serve`: credentials, the cache of Namespaces and the two HTTP servers, from start to drain.

In order: health answers first; then the Namespaces are listed while replicas agree on credentials and have API servers
trust them; then HTTPS listens; only then it is ready. On SIGTERM it is unready at once, and goes on answering while the
Service's endpoints change; it stops once clients have closed their connections, and open no more.
"""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Final

from webhook.certificate_controller import CertificateController
from webhook.common.endpoint import ConfigurationError
from webhook.common.http_server import PLAIN_HTTP, BoundedServer
from webhook.common.kubeapi import ApiError, KubeApi
from webhook.common.logs import configure_logging
from webhook.common.pages import Pages
from webhook.common.version import REVISION, VERSION
from webhook.handlers import Admission, Readiness
from webhook.listener import Listener
from webhook.metrics import Metrics
from webhook.mounted_certificates import MountedCertificates
from webhook.namespaces import Namespaces
from webhook.settings import Settings, settings_of

_NAMESPACES: Final = "the first list of Namespaces"
_CERTIFICATE: Final = "a certificate that API servers trust"
# Kubelet and Prometheus have a few. As many as for HTTPS would give strangers as much memory again to fill; with very
# few, probes would wait too long in a flood.
HEALTH_BOUNDS: Final = replace(PLAIN_HTTP, connections=128, finish_s=1.0)

logger = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. The exit status: 0 after a drain, 1 when it could not start or go on."""
    configure_logging(sys.stdout, ("webhook", "certs"), args.log_level)
    logger.info("starting", extra={"version": VERSION, "revision": REVISION})
    status = 0
    try:
        asyncio.run(_run(settings_of(args)))
    except* (ConfigurationError, OSError) as group:
        for error in _leaves(group):
            logger.error("cannot serve: %s", error)
        status = 1
    return status


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    """The exceptions of a group, and of the groups in it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


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


async def serve(
    settings: Settings, api: KubeApi, stop: asyncio.Event, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Serve until `stop` is set, then drain. Raises OSError in an ExceptionGroup when a port cannot be had."""
    metrics = Metrics()
    readiness = Readiness((_NAMESPACES, _CERTIFICATE))
    metrics.ready.set_function(lambda: readiness.problem is None)

    def restarted(error: ApiError) -> None:
        metrics.watch_restarts.inc()
        readiness.waits(_NAMESPACES, str(error))

    namespaces = Namespaces(api, restarted)
    metrics.watch_connected.set_function(lambda: namespaces.connected)
    admission = BoundedServer(Admission(namespaces, metrics, readiness).handle)
    pages = Pages(lambda: readiness.problem, metrics.registry)
    health = BoundedServer(pages.handle, bounds=HEALTH_BOUNDS)
    try:
        await health.listen(settings.listen, settings.health_port)
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(namespaces.run()),
                tasks.create_task(_follow_sync(namespaces, readiness)),
                # A server that accepts no more connections must be restarted.
                tasks.create_task(admission.accepting()),
                tasks.create_task(health.accepting()),
            ]
            certified = tasks.create_task(_keep_certified(settings, api, admission, metrics, readiness))
            await stop.wait()
            logger.info("draining for %.1f s", settings.drain_s)
            # At once, though where all replicas are being deleted, kube-proxy goes on calling those that are ready
            # (pkg/proxy, CategorizeEndpoints). When a node shuts down, kubelet stops Pods that nobody has deleted,
            # often within 10 s (shutdownGracePeriodCriticalPods): /readyz alone sends calls elsewhere before the end.
            readiness.draining = True
            # Its successors, whose settings may differ, keep the certificates from now on: a Secret that was deleted
            # because its key leaked must not be restored by a replica that is terminating.
            certified.cancel()
            await sleep(settings.drain_s)
            await admission.drain(settings.drain_s, settings.linger_s, sleep)
            for task in background:
                task.cancel()
        logger.info("stopped")
    finally:
        await asyncio.gather(admission.close(), health.close())


async def _follow_sync(namespaces: Namespaces, readiness: Readiness) -> None:
    await namespaces.synced.wait()
    logger.info("Namespaces are listed: %d with a network label", len(namespaces))
    readiness.done(_NAMESPACES)


async def _keep_certified(
    settings: Settings, api: KubeApi, admission: BoundedServer, metrics: Metrics, readiness: Readiness
) -> None:
    """Serve HTTPS with our own certificates, or with those that others put into a folder."""
    listener = Listener(admission, settings.listen, settings.port, metrics)

    def report_problem(problem: str | None) -> None:
        if problem is not None:
            readiness.waits(_CERTIFICATE, problem)
        else:
            readiness.done(_CERTIFICATE)

    if settings.certificates is None:
        await CertificateController(settings, api, listener, metrics, report_problem).run()
    else:
        await MountedCertificates(settings.certificates, listener, report_problem).run()
