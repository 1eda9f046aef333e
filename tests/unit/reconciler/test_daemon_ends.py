"""However the daemon ends, and if it could not even start, nothing goes on, and what it opened is closed."""

import asyncio
import os
import signal
import socket
import threading

import pytest

from reconciler import daemon
from reconciler.kernel.errors import ShapingError
from tests.unit.reconciler.controller_bench import raised
from tests.unit.reconciler.daemon_bench import Api, Monitor, settings_in
from tests.waiting import PATIENCE_S, until


class Compiling:
    """What gets the shaper to work, and does not get it done."""

    def __init__(self):
        self.begun, self.stopped = threading.Event(), threading.Event()

    def prepare(self):
        self.begun.set()
        self.stopped.wait(PATIENCE_S)

    def start(self, _keys):
        raise AssertionError

    def stop(self):
        self.stopped.set()


@pytest.fixture
def api(monkeypatch):
    api = Api(answers=False)
    monkeypatch.setattr(daemon, "KubeApi", api)
    return api


@pytest.fixture
def monitor(monkeypatch):
    monitor = Monitor()
    monkeypatch.setattr(daemon, "Monitor", lambda: monitor)
    return monitor


@pytest.fixture
def settings(monkeypatch, tmp_path):
    monkeypatch.setattr(daemon, "probe", dict)
    return settings_in(tmp_path)


async def test_who_hears_of_no_changes_says_why_and_lets_go_of_the_api_server(monkeypatch, api, settings):
    monkeypatch.setattr(daemon, "Monitor", lambda: raised(ShapingError("give CAP_NET_BROADCAST")))
    with pytest.raises(ShapingError, match="CAP_NET_BROADCAST"):
        await daemon.run(settings)
    assert api.closed


async def test_who_is_told_to_stop_while_its_port_is_taken_lets_go_of_all(api, monitor, settings, caplog):
    with socket.create_server(("127.0.0.1", settings.port)):
        running = asyncio.create_task(daemon.run(settings))
        await until(lambda: "name another" in caplog.text)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            await running
    assert (api.closed, monitor.closed) == (True, True)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_who_is_told_to_stop_while_it_compiles_waits_for_no_compiler_and_leaves_nothing_at_work(
    monkeypatch, api, monitor, settings
):
    compiling = Compiling()
    monkeypatch.setattr(daemon, "ShaperStartup", lambda *_: compiling)
    running = asyncio.create_task(daemon.run(settings))
    await asyncio.to_thread(compiling.begun.wait, PATIENCE_S)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(PATIENCE_S / 2):
        await running
    assert await asyncio.to_thread(compiling.stopped.wait, 0)
    assert (api.closed, monitor.closed) == (True, True)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.usefixtures("monitor")
async def test_what_was_begun_beside_all_else_is_over_before_what_it_works_with_is_closed(monkeypatch, api, settings):
    tasks, compiled = [], Compiling()
    compiled.stop()
    monkeypatch.setattr(daemon, "ShaperStartup", lambda *_: compiled)
    monkeypatch.setattr(api, "close", lambda: still_at_work(tasks))
    running = asyncio.create_task(daemon.run(settings))
    async with asyncio.timeout(PATIENCE_S):
        await until(lambda: any("_wait_for_synchronize" in str(task.get_coro()) for task in asyncio.all_tasks()))
        os.kill(os.getpid(), signal.SIGTERM)
        await running
    assert tasks == [{asyncio.current_task(), running}]


async def still_at_work(tasks):
    tasks.append(asyncio.all_tasks())
