"""Wires the reconciler together and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from reconciler import pods
from reconciler.controller import Controller
from reconciler.events import Events
from reconciler.http import Pages, listen
from reconciler.kernel.monitor import Changes, Monitor
from reconciler.kernel.netns import NETNS_FOLDER
from reconciler.kernel.probe import probe
from reconciler.kernel_check import KernelCheck
from reconciler.listener import Listener
from reconciler.metrics import Metrics
from reconciler.nri.transport import NriPlugin
from reconciler.patrol import Patrol
from reconciler.runtime_check import RuntimeCheck
from reconciler.starting import Starting
from reconciler.turn import take_turn
from reconciler.watch_check import WatchCheck
from webhook.bounded import BoundedServer
from webhook.kubeapi import KubeApi
from webhook.reflector import Reflector
from webhook.version import REVISION, VERSION

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line decides; ports are TCP, `slots` the most Pods that can be limited at once."""

    node: str
    nri_socket: Path
    host: str
    port: int
    probe_port: int
    slots: int


async def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. The shaping stays in the kernel: limits hold while nobody watches."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if await take_turn(stopping, settings.nri_socket.parent) is None:
        return
    # The turn ends with the process: the thread that works on the kernel may outlast this function.
    metrics = Metrics()
    api = await KubeApi.connect(user_agent="ipvlan-bandwidth-reconciler")
    events = Events(
        api,
        node=settings.node,
        clock=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        sleep=asyncio.sleep,
        suffix=lambda: secrets.token_hex(8),
        on_dropped=metrics.events_dropped.inc,
    )
    # One thread for all work on the kernel: a plan is made and carried out with nothing of ours in between.
    executor = ThreadPoolExecutor(1, thread_name_prefix="kernel")
    monitor = Monitor()
    starting = Starting(settings.slots, NETNS_FOLDER)
    controller = Controller(
        starting.start,
        prepare=starting.prepare,
        monitor=monitor,
        events=events,
        metrics=metrics,
        executor=executor,
        sleep=asyncio.sleep,
        monotonic=time.monotonic,
    )
    kernel_check = KernelCheck(probe, tell_node=events.tell_node, gauge=metrics.kernel_lacks, sleep=asyncio.sleep)
    patrol = Patrol(controller, events=events, sleep=asyncio.sleep)
    reflector = Reflector(
        api,
        "/api/v1/pods",
        params={"fieldSelector": pods.selector(settings.node)},
        keep=pods.from_api,
        on_sync=controller.on_pods,
        on_event=controller.on_pod_event,
        on_restart=metrics.watch_restarts.inc,
    )
    watch_check = WatchCheck(reflector, gauge=metrics.watch_connected, tell_node=events.tell_node, sleep=asyncio.sleep)
    runtime = NriPlugin(controller, socket_path=str(settings.nri_socket))

    runtime_check = RuntimeCheck(
        lambda: runtime.connected,
        trouble=lambda: runtime.trouble,
        socket_path=str(settings.nri_socket),
        tell_node=events.tell_node,
        sleep=asyncio.sleep,
    )

    def why_not_ready() -> str | None:
        reason = kernel_check.why_not_ready() or runtime_check.why_not_ready() or watch_check.why_not_ready()
        if reason is None and not controller.ready:
            reason = "the BPF program is not loaded yet"
        return controller.trouble or reason

    async def before_scrape() -> None:
        metrics.pods.show(await controller.upkeep.counters(), patrol.unshaped())
        for state, count in controller.wanted()._asdict().items():
            metrics.wanted.labels(state=state).set(count)
        metrics.connected.set(runtime.connected)

    def on_changes(heard: Changes) -> None:
        controller.on_netns_changed(heard.netns_paths)
        if heard.overrun:
            controller.on_overrun()

    listener = Listener(monitor, on_changes)
    pages = Pages(why_not_ready=why_not_ready, before_scrape=before_scrape, registry=metrics.registry)
    servers = await listen(pages.handle, settings.host, settings.port, settings.probe_port)
    log.info(
        "started",
        extra={"version": VERSION, "revision": REVISION, "node": settings.node, "slots": settings.slots},
    )
    try:
        async with asyncio.TaskGroup() as group:
            work = [
                group.create_task(forever)
                for forever in (
                    runtime.run(after=controller.prepare),
                    reflector.run(),
                    controller.run(),
                    controller.upkeep.run_collector(),
                    controller.upkeep.run_audits(),
                    patrol.run(),
                    kernel_check.run(),
                    runtime_check.run(),
                    watch_check.run(),
                    *map(BoundedServer.accepting, servers),
                )
            ]
            posting = group.create_task(events.run())
            await stopping.wait()
            await events.finish(posting)
            for task in work:
                task.cancel()
    finally:
        listener.close()
        await asyncio.gather(*map(BoundedServer.close, servers))
        await api.close()
        monitor.close()
        executor.shutdown(wait=False, cancel_futures=True)
    log.info("stopped; limits stay in force")
