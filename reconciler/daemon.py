"""Wires the reconciler together and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import time
from collections.abc import Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reconciler import node_problems, pods
from reconciler.controller import Controller
from reconciler.events import Events
from reconciler.http import Ports
from reconciler.kernel.monitor import Monitor
from reconciler.kernel.netns import NETNS_FOLDER
from reconciler.kernel.probe import probe
from reconciler.kernel_check import KernelCheck
from reconciler.metrics import Metrics
from reconciler.monitor_reader import MonitorReader
from reconciler.node_lock import PATIENCE_S, acquire_node_lock
from reconciler.node_problems import NodeProblem
from reconciler.nri.transport import NriPlugin
from reconciler.program_record import ProgramRecord
from reconciler.shaper_startup import ShaperStartup
from webhook.common.kubeapi import KubeApi
from webhook.common.pages import Pages
from webhook.common.reflector import Reflector
from webhook.common.version import REVISION, VERSION

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of the command line; ports are TCP, `slots` is the most Pods that can be limited at once."""

    node: str
    nri_socket: Path
    host: str
    port: int
    probe_port: int
    slots: int


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts that work together; `executor` is the one thread for all work on the kernel."""

    metrics: Metrics
    events: Events
    executor: ThreadPoolExecutor
    monitor: Monitor
    controller: Controller
    kernel_check: KernelCheck
    reflector: Reflector
    runtime: NriPlugin
    ports: Ports
    problems: tuple[NodeProblem, ...]
    starting: ShaperStartup

    def why_not_ready(self) -> str | None:
        """The reason that kubelet's probe gets; None when ready."""
        checks = self.kernel_check.why_not_ready, *(problem.why_not_ready for problem in self.problems)
        reason = next((found for check in checks if (found := check())), None)
        if reason is None and not self.controller.ready:
            reason = "the BPF program is not loaded yet"
        return self.controller.trouble or reason

    async def before_scrape(self) -> None:
        """Update the metrics that are read only at a scrape."""
        self.metrics.pods.show(await self.controller.housekeeping.counters(), self.controller.resync.unshaped())
        for state, count in self.controller.pod_counts()._asdict().items():
            self.metrics.pods_by_state.labels(state=state).set(count)

    def close(self) -> None:
        """Let go of the kernel; a compile in progress is stopped, as the process would wait for it."""
        self.starting.stop()
        self.executor.shutdown(wait=False, cancel_futures=True)
        self.monitor.close()

    def work(self) -> Iterable[Coroutine[Any, Any, None]]:
        """All work that runs for ever, except posting events."""
        pages = Pages(self.why_not_ready, self.metrics.registry, self.before_scrape)
        return (
            self.ports.run(pages.handle),
            self.runtime.run(after=self.controller.prepare),
            self.reflector.run(),
            self.controller.run(),
            self.controller.housekeeping.run_garbage_collector(),
            self.controller.housekeeping.run_unreported_checks(),
            self.controller.housekeeping.run_audits(),
            self.controller.resync.run(),
            self.kernel_check.run(),
            *(problem.run(self.events.record_node, asyncio.sleep) for problem in self.problems),
        )


async def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. The shaping stays in the kernel: limits hold while no reconciler runs."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if await acquire_node_lock(stopping, settings.nri_socket.parent, PATIENCE_S) is None:
        return
    # The lock ends with the process: the thread that works on the kernel may outlast this function.
    async with AsyncExitStack() as opened:
        api = await KubeApi.connect(user_agent="ipvlan-bandwidth-reconciler")
        opened.push_async_callback(api.close)
        parts = _built(settings, api)
        opened.callback(parts.close)
        opened.callback(MonitorReader(parts.monitor, parts.controller).close)
        logger.info(
            "started",
            extra={"version": VERSION, "revision": REVISION, "node": settings.node, "slots": settings.slots},
        )
        async with asyncio.TaskGroup() as group:
            work = [group.create_task(forever) for forever in parts.work()]
            posting = group.create_task(parts.events.run())
            await stopping.wait()
            # First, as the events of what it finishes are to be posted too.
            await parts.runtime.finish()
            await parts.events.finish(posting)
            for task in work:
                task.cancel()
    logger.info("stopped; limits stay in force")


def _built(settings: Settings, api: KubeApi) -> _Parts:
    metrics = Metrics()
    metrics.slots.set(settings.slots)
    events = Events(
        api,
        node=settings.node,
        utcnow=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        sleep=asyncio.sleep,
        suffix=lambda: secrets.token_hex(8),
        on_dropped=metrics.events_dropped.inc,
    )
    # One thread: none of our own work comes between making a plan and carrying it out.
    executor = ThreadPoolExecutor(1, thread_name_prefix="kernel")
    monitor = Monitor()
    starting = ShaperStartup(settings.slots, NETNS_FOLDER, ProgramRecord(settings.nri_socket.parent))
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
    reflector = Reflector(
        api,
        "/api/v1/pods",
        params={"fieldSelector": pods.selector(settings.node)},
        keep=pods.from_api,
        on_sync=controller.on_pods,
        on_event=controller.on_pod_event,
        on_restart=lambda _: metrics.watch_restarts.inc(),
    )
    runtime = NriPlugin(controller, socket_path=str(settings.nri_socket))
    ports = Ports(settings.host, settings.port, settings.probe_port)
    metrics.registered.set_function(lambda: runtime.registered)
    metrics.connected.set_function(lambda: runtime.connected)
    metrics.watch_connected.set_function(lambda: reflector.connected)
    return _Parts(
        metrics=metrics,
        events=events,
        executor=executor,
        monitor=monitor,
        controller=controller,
        kernel_check=KernelCheck(
            probe, record_node=events.record_node, gauge=metrics.kernel_lacks, sleep=asyncio.sleep
        ),
        reflector=reflector,
        runtime=runtime,
        ports=ports,
        problems=(
            node_problems.of_runtime(runtime),
            node_problems.of_watch(reflector),
            node_problems.of_ports(ports),
        ),
        starting=starting,
    )
