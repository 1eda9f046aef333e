"""The webhook's server from its start to its drain: when it is ready, what it mends, and how it ends."""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from tests.unit.webhook.fake_api import CONFIGURATION, SECRET, FakeApi, namespace
from tests.unit.webhook.running_server import GOOD, free_port, parsed, review, running
from webhook import server


async def connected(**_: str) -> FakeApi:
    return FakeApi(namespace("shop", "kube-system.ipvlan"))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is in plain objects
            await asyncio.sleep(0.01)


async def test_it_is_alive_at_once_and_says_what_it_waits_for() -> None:
    api = FakeApi()
    api.down = True
    async with running(api) as starting:
        status, text = 0, ""
        while "no answer" not in text:
            await asyncio.sleep(0.01)
            with suppress(aiohttp.ClientConnectorError):
                status, text = await starting.get("/readyz")
        assert (await starting.get("/healthz")) == (200, "ok\n")
        assert status == 503
        assert "waiting for the first list of Namespaces" in text
        assert "waiting for a certificate that API servers trust: no answer (Unreachable)" in text
        api.down = False
        await starting.ready()


async def test_a_configuration_that_is_applied_again_later_gets_its_bundle_again() -> None:
    api = FakeApi()
    async with running(api, recheck_s=0.02) as server_:
        await server_.ready()
        api.objects[CONFIGURATION]["webhooks"][0]["clientConfig"].pop("caBundle")
        await until(lambda: "caBundle" in api.objects[CONFIGURATION]["webhooks"][0]["clientConfig"])


async def test_an_api_server_that_goes_away_later_leaves_it_ready() -> None:
    api = FakeApi(namespace("shop", "kube-system.ipvlan"))
    async with running(api, recheck_s=0.01) as server_:
        await server_.ready()
        api.down = True
        calls = len(api.calls)
        await until(lambda: len(api.calls) > calls)
        await asyncio.sleep(0.05)
        assert (await server_.get("/readyz"))[0] == 200
        assert (await server_.answer(review(GOOD)))["allowed"]


async def test_a_secret_that_is_deleted_is_made_again_and_served_with() -> None:
    api = FakeApi(namespace("shop", "kube-system.ipvlan"))
    async with running(api, recheck_s=0.02) as server_:
        await server_.ready()
        before = server_.trusting()
        api.objects.pop(SECRET)
        await until(lambda: SECRET in api.objects)
        await asyncio.sleep(0.05)
        assert (await server_.answer(review(GOOD)))["allowed"]
        assert server_.trusting().get_ca_certs() != before.get_ca_certs()


async def test_two_replicas_that_start_at_once_are_both_trusted() -> None:
    api = FakeApi(namespace("shop", "kube-system.ipvlan"))
    async with running(api) as first, running(api) as second:
        await asyncio.gather(first.ready(), second.ready())
        for each in (first, second):
            assert (await each.answer(review(GOOD)))["allowed"]


async def test_a_drain_is_unready_but_still_answers_and_sends_connections_away() -> None:
    api = FakeApi(namespace("shop", "kube-system.ipvlan"))
    async with running(api, drain_s=0.3) as server_:
        await server_.ready()
        assert "Connection" not in (await server_.post(review(GOOD))).headers
        server_.stop.set()
        await asyncio.sleep(0.01)
        assert await server_.get("/readyz") == (503, "draining: this replica is about to stop\n")
        response = await server_.post(review(GOOD))
        assert (response.status, response.headers["Connection"]) == (200, "close")
        await server_.task
        with pytest.raises(aiohttp.ClientConnectorError):
            await server_.post(review(GOOD))


@pytest.fixture
def root_logger() -> Iterator[None]:
    """Puts logging back as it was: the command sets it up for a process of its own."""
    root = logging.getLogger()
    before = list(root.handlers), root.level
    yield
    root.handlers[:], level = before
    root.setLevel(level)


@pytest.mark.usefixtures("root_logger")
def test_the_command_serves_until_sigterm_and_exits_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("webhook.kubeapi.KubeApi.connect", connected)
    port = free_port()
    args = parsed("--listen=127.0.0.1", f"--port={free_port()}", f"--health-port={port}", "--drain-seconds=0")

    def stop_when_ready() -> None:
        with suppress(OSError):
            if urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).status == 200:
                os.kill(os.getpid(), signal.SIGTERM)
                return
        again = threading.Timer(0.05, stop_when_ready)
        again.start()

    stop_when_ready()
    assert server.main(args) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    messages = [line["message"] for line in lines]
    assert messages[-2:] == ["draining for 0.0 s", "stopped"]
    assert {"timestamp", "level", "logger"} <= lines[0].keys()


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize("which", ["--port", "--health-port"])
def test_a_port_that_is_taken_is_told_in_a_sentence_and_exits_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    monkeypatch.setattr("webhook.kubeapi.KubeApi.connect", connected)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {"--port": free_port(), "--health-port": free_port(), which: taken.getsockname()[1]}
        args = parsed("--listen=127.0.0.1", *(f"{name}={port}" for name, port in ports.items()))
        assert server.main(args) == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["level"] == "ERROR"
    assert "address already in use" in last["message"]


def test_without_a_cluster_the_command_says_what_is_missing_and_exits_1(tmp_path: Path) -> None:
    environ = {**os.environ, "KUBECONFIG": str(tmp_path / "none")}
    environ.pop("KUBERNETES_SERVICE_HOST", None)
    ran = subprocess.run(
        [sys.executable, "-m", "webhook", "serve"], env=environ, capture_output=True, text=True, check=False, timeout=30
    )
    assert ran.returncode == 1
    assert ran.stderr == ""
    line = json.loads(ran.stdout)
    assert line["level"] == "ERROR"
    assert "set KUBECONFIG" in line["message"]
