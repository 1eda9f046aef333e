"""However the daemon ends, and if it could not even start, nothing goes on, and what it opened is closed."""

import asyncio
import os
import signal
import socket
import threading
from types import SimpleNamespace

import pytest

from reconciler import daemon
from reconciler.daemon import Settings
from reconciler.kernel.errors import ShapingError
from tests.ports import free_ports
from tests.unit.reconciler.controller_bench import raised
from tests.waiting import PATIENCE_S, until


class Opened:
    """The API server, which answers nothing, and what would hear of changes."""

    def __init__(self):
        self.api_closed, self.monitor_closed = False, False
        self._ends = os.pipe()
        self.api = SimpleNamespace(read_list=self._wait, close=self._close_api)
        self.monitor = SimpleNamespace(fileno=lambda: self._ends[0], close=self._close_monitor)

    async def connect(self, **_):
        return self.api

    async def _wait(self, *_):
        await asyncio.Event().wait()

    async def _close_api(self):
        self.api_closed = True

    def _close_monitor(self):
        self.monitor_closed = True
        for end in self._ends:
            os.close(end)


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
def opened(monkeypatch):
    opened = Opened()
    monkeypatch.setattr(daemon, "KubeApi", opened)
    monkeypatch.setattr(daemon, "Monitor", lambda: opened.monitor)
    monkeypatch.setattr(daemon, "probe", dict)
    return opened


@pytest.fixture
def settings(tmp_path):
    port, probe_port = free_ports(2)
    return Settings("node1", tmp_path / "nri.sock", "127.0.0.1", port, probe_port, slots=7)


async def test_who_hears_of_no_changes_says_why_and_lets_go_of_the_api_server(monkeypatch, opened, settings):
    monkeypatch.setattr(daemon, "Monitor", lambda: raised(ShapingError("give CAP_NET_BROADCAST")))
    with pytest.raises(ShapingError, match="CAP_NET_BROADCAST"):
        await daemon.run(settings)
    assert opened.api_closed


async def test_whose_port_is_taken_says_so_and_lets_go_of_all(opened, settings):
    with socket.create_server(("127.0.0.1", settings.port)), pytest.raises(ShapingError, match="name another"):
        await daemon.run(settings)
    assert (opened.api_closed, opened.monitor_closed) == (True, True)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_who_is_told_to_stop_while_it_compiles_waits_for_no_compiler_and_leaves_nothing_at_work(
    monkeypatch, opened, settings
):
    compiling = Compiling()
    monkeypatch.setattr(daemon, "ShaperStartup", lambda *_: compiling)
    running = asyncio.create_task(daemon.run(settings))
    await asyncio.to_thread(compiling.begun.wait, PATIENCE_S)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(PATIENCE_S / 2):
        await running
    assert await asyncio.to_thread(compiling.stopped.wait, 0)
    assert (opened.api_closed, opened.monitor_closed) == (True, True)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_what_was_begun_beside_all_else_is_over_before_what_it_works_with_is_closed(
    monkeypatch, opened, settings
):
    tasks, compiled = [], Compiling()
    compiled.stop()
    monkeypatch.setattr(daemon, "ShaperStartup", lambda *_: compiled)
    monkeypatch.setattr(opened.api, "close", lambda: still_at_work(tasks))
    running = asyncio.create_task(daemon.run(settings))
    async with asyncio.timeout(PATIENCE_S):
        await until(lambda: any("_wait_for_synchronize" in str(task.get_coro()) for task in asyncio.all_tasks()))
        os.kill(os.getpid(), signal.SIGTERM)
        await running
    assert tasks == [{asyncio.current_task(), running}]


async def still_at_work(tasks):
    tasks.append(asyncio.all_tasks())
