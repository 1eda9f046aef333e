"""How the daemon is put together: what runs, who hears of what, what is said of it, and what is done at its end."""

import asyncio
import inspect
import os
import signal
import socket
import threading
from contextlib import asynccontextmanager
from types import SimpleNamespace

import aiohttp
import pytest

from reconciler import daemon, http
from reconciler.controller import Controller
from reconciler.events import AT_ONCE
from reconciler.kernel.monitor import Changes
from reconciler.kernel_executor import HANGS_S
from reconciler.nri.ttrpc import Response
from reconciler.pods import PodView
from reconciler.report import Notice, Reason
from reconciler.requirements import Feature, lacks
from tests.unit.nri.runtime_side import pod_request
from tests.unit.nri.runtime_socket import Runtime
from tests.unit.reconciler.controller_bench import M100, A, Kernel, metric, sandbox
from tests.unit.reconciler.daemon_bench import Api, Monitor, settings_in
from tests.waiting import PATIENCE_S, until
from webhook.common.contract import Limits
from webhook.common.kubeapi import ApiError
from webhook.common.pages import METRICS_CACHE_S

FORBIDDEN = ApiError(403, "Forbidden", "pods is forbidden")
NOTICE = Notice(Reason.STARTED, "a last word")


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """Of a node whose kernel is only remembered."""
    kernel = Kernel()
    starting = SimpleNamespace(prepare=lambda: None, start=lambda _: kernel, stop=lambda: None)
    monkeypatch.setattr(daemon, "Monitor", Monitor)
    monkeypatch.setattr(daemon, "ShaperStartup", lambda *_: starting)
    monkeypatch.setattr(daemon, "probe", dict)
    return settings_in(tmp_path)


@pytest.fixture
async def parts(settings):
    made = daemon._built(settings, Api())
    yield made
    made.executor.shutdown()
    made.monitor.close()


async def test_the_record_of_programs_is_beside_the_runtimes_socket_as_clean_looks_there(settings, monkeypatch):
    folders = []
    monkeypatch.setattr(daemon, "ProgramRecord", folders.append)
    made = daemon._built(settings, Api())
    made.executor.shutdown()
    made.monitor.close()
    assert folders == [settings.nri_socket.parent]


def runs(part):
    """The functions of a part that go on for ever, by its class."""
    found = inspect.getmembers(type(part), inspect.iscoroutinefunction)
    return {function.__qualname__ for name, function in found if name == "run" or name.startswith("run_")}


async def test_whatever_goes_on_for_ever_is_begun(parts):
    work = [*parts.work()]
    begun = [each.__qualname__ for each in work]
    for each in work:
        each.close()
    named = [*parts.problems, *(getattr(parts, name) for name in parts.__slots__)]
    of_controller = [each for name, each in vars(parts.controller).items() if not name.startswith("_")]
    wanted = [name for part in (*named, *of_controller) for name in runs(part) if name != "Events.run"]
    assert {"Controller.run", "Reflector.run", "NriPlugin.run", "KernelCheck.run", "NodeProblem.run"} < {*wanted}
    assert sorted(begun) == sorted(wanted), "events are posted until the end"


def fine(parts):
    """Nothing is in the way."""
    parts.runtime.connected = True
    parts.controller._loader.finish(Kernel())


def hangs(parts):
    kernel = parts.controller._kernel
    kernel._at_work = kernel._monotonic() - HANGS_S - 1, HANGS_S


def is_not_loaded(parts):
    parts.controller._loader._loaded = asyncio.get_running_loop().create_future()


TROUBLES = {
    "cannot listen on": lambda parts: parts.ports._troubles.update({"metrics": "cannot listen on port 9745"}),
    "may not list and watch Pods": lambda parts: setattr(parts.reflector, "refused", FORBIDDEN),
    "not connected to the container runtime's NRI socket": lambda parts: setattr(parts.runtime, "connected", False),
    "this node's kernel has no": lambda parts: setattr(parts.kernel_check, "_lacks", lacks({Feature.FQ: "no"})),
    "cannot be loaded": lambda parts: setattr(parts.controller._loader, "trouble", "cannot be loaded"),
    "the kernel has not answered": hangs,
}
"""What is said of each, the most urgent last."""


@pytest.mark.parametrize("said", TROUBLES)
async def test_each_trouble_makes_it_unready_by_itself(parts, said):
    fine(parts)
    assert parts.why_not_ready() is None
    TROUBLES[said](parts)
    assert parts.why_not_ready().startswith(said)


async def test_of_several_troubles_the_most_urgent_is_told(parts):
    fine(parts)
    is_not_loaded(parts)
    assert parts.why_not_ready() == "the BPF program is not loaded yet"
    for said, begins in TROUBLES.items():
        begins(parts)
        assert parts.why_not_ready().startswith(said)


async def test_what_is_dropped_or_begun_again_is_counted(parts):
    pod = PodView("u1", "shop", "web-0")
    for _ in range(AT_ONCE + 1):
        parts.events.record(pod, NOTICE)
    assert metric(parts, "events_dropped_total") == 1
    parts.events._api.refusal = FORBIDDEN
    watching = asyncio.create_task(parts.reflector.run())
    await until(lambda: metric(parts, "watch_restarts_total"))
    watching.cancel()
    assert metric(parts, "watch_connected") == 0
    parts.reflector.connected = True
    assert metric(parts, "watch_connected") == 1
    assert metric(parts, "slots") == 7


@asynccontextmanager
async def running(monkeypatch, settings):
    """The daemon until it is told to stop; gives what it is made of."""
    api, made = Api(), []

    def built(*arguments):
        made.append(make(*arguments))
        return made[0]

    make = daemon._built
    monkeypatch.setattr(daemon, "KubeApi", api)
    monkeypatch.setattr(daemon, "_built", built)
    task = asyncio.create_task(daemon.run(settings))
    await until(lambda: made or task.done())
    try:
        yield made[0]
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            await task
    finally:
        task.cancel()


async def test_the_controller_hears_of_changes_and_that_some_were_lost(monkeypatch, settings):
    heard = []
    monkeypatch.setattr(Controller, "on_netns_changed", lambda _, paths: heard.append(paths))
    monkeypatch.setattr(Controller, "on_any_changed", lambda _: heard.append("any"))
    async with running(monkeypatch, settings) as parts:
        parts.monitor.says(Changes(frozenset({"/run/netns/a"})))
        await until(lambda: heard == [{"/run/netns/a"}])
        parts.monitor.says(Changes(frozenset({"/run/netns/b"}), overrun=True))
        await until(lambda: heard[1:] == [{"/run/netns/b"}, "any"])


async def page(port, name):
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{port}/{name}") as answer:
        return await answer.text()


def is_open(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


async def test_it_is_ready_once_the_runtime_tells_of_its_pods_and_shows_what_it_has(monkeypatch, settings):
    async with running(monkeypatch, settings) as parts:
        runtime = Runtime(settings.nri_socket)
        await until(lambda: is_open(settings.port) and is_open(settings.probe_port))
        assert "not connected to the container runtime" in await page(settings.probe_port, "readyz")
        assert "ipvlan_bandwidth_runtime_registered 0.0" in await page(settings.port, "metrics")
        await runtime.listen()
        connection = await runtime.accept()
        await connection.start(sandbox())
        await until(lambda: parts.why_not_ready() is None)
        assert await page(settings.probe_port, "readyz") == "ok\n"
        await until(lambda: parts.controller.pod_counts().shaped == 1)
        await asyncio.sleep(METRICS_CACHE_S)
        metrics = await page(settings.port, "metrics")
        for line in ("runtime_registered 1.0", "runtime_connected 1.0", 'pods{state="shaped"} 1.0', "slots 7.0"):
            assert f"ipvlan_bandwidth_{line}" in metrics
        await runtime.close()


@pytest.mark.parametrize("taken", ["port", "probe_port"])
async def test_whose_port_somebody_else_has_limits_pods_all_the_same_and_serves_once_it_is_free(
    monkeypatch, settings, taken
):
    monkeypatch.setattr(http, "AGAIN_S", 0.01)
    runtime = Runtime(settings.nri_socket)
    await runtime.listen()
    others = socket.create_server(("127.0.0.1", getattr(settings, taken)))
    async with running(monkeypatch, settings) as parts:
        connection = await runtime.accept()
        await connection.start(sandbox())
        await until(lambda: parts.controller.pod_counts().shaped == 1)
        assert parts.why_not_ready().startswith(f"cannot listen on port {getattr(settings, taken)} of 127.0.0.1")
        others.close()
        await until(lambda: parts.why_not_ready() is None)
        assert await page(getattr(settings, taken), "readyz") == "ok\n"
    await runtime.close()


async def test_what_was_told_last_is_posted_before_it_ends(monkeypatch, settings):
    async with running(monkeypatch, settings) as parts:
        parts.events.record_node(NOTICE)
    assert parts.events._api.created == [NOTICE.message]
    assert parts.events._api.closed
    assert parts.executor._shutdown


async def test_a_pod_that_is_being_started_as_it_is_told_to_stop_gets_its_limits_and_its_events(monkeypatch, settings):
    begun, go_on = threading.Event(), threading.Event()
    runtime = Runtime(settings.nri_socket)
    await runtime.listen()
    async with running(monkeypatch, settings) as parts:
        connection = await runtime.accept()
        await connection.start()
        kernel = await parts.controller._loader.shaper()
        shape = kernel.shape

        def slow(*asked):
            begun.set()
            assert go_on.wait(PATIENCE_S)
            return shape(*asked)

        kernel.shape = slow
        answer = asyncio.create_task(connection.call("RunPodSandbox", pod_request(sandbox())))
        assert await asyncio.to_thread(begun.wait, PATIENCE_S)
        asyncio.get_running_loop().call_later(0.1, go_on.set)
    assert await answer == Response()
    assert kernel.held == {("u1", A): Limits(ingress=M100)}
    assert [message for message in parts.events._api.created if "100M" in message]
    await runtime.close()
