"""The webhook's server from its start to its drain: when it is ready, what it mends, and how it ends."""

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from certs.credentials import Lifetimes
from tests.ports import free_ports
from tests.unit.stopping import assert_ends_by_itself_at_sigterm
from tests.unit.webhook.fake_api import CONFIGURATION, EVENTS, SECRET, FakeApi, Json, shop
from tests.unit.webhook.running_server import GOOD, parsed, review, running, serving
from tests.waiting import until
from webhook import server


async def connected(**_: str) -> FakeApi:
    return shop()


async def test_it_is_alive_at_once_and_says_what_it_waits_for() -> None:
    api = FakeApi()
    api.down = True
    async with running(api) as starting:
        await starting.says("no answer", times=2)
        status, text = await starting.readyz()
        assert (await starting.get("/healthz")) == (200, "ok\n")
        assert status == 503
        assert "waiting for the first list of Namespaces: no answer (Unreachable)" in text
        assert "waiting for a certificate that API servers trust: no answer (Unreachable)" in text
        assert "ipvlan_bandwidth_watch_connected 0.0" in (await starting.get("/metrics"))[1]
        api.down = False
        await starting.ready()
        assert "ipvlan_bandwidth_watch_connected 1.0" in (await starting.get("/metrics"))[1]


async def test_a_configuration_that_is_applied_again_later_gets_its_bundle_again() -> None:
    api = FakeApi()
    async with serving(api, recheck_s=0.02):
        api.objects[CONFIGURATION]["webhooks"][0]["clientConfig"].pop("caBundle")
        await until(lambda: "caBundle" in api.objects[CONFIGURATION]["webhooks"][0]["clientConfig"])


async def test_an_api_server_that_goes_away_later_leaves_it_ready() -> None:
    api = shop()
    async with serving(api, recheck_s=0.01) as server_:
        api.down = True
        calls = len(api.calls)
        await until(lambda: len(api.calls) > calls)
        await asyncio.sleep(0.05)
        assert (await server_.get("/readyz"))[0] == 200
        assert (await server_.answer(review(GOOD)))["allowed"]


async def test_a_secret_that_is_deleted_is_restored_and_the_same_certificate_served() -> None:
    api = shop()
    async with serving(api, recheck_s=0.02) as server_:
        before, bundle = api.objects[SECRET]["data"], server_.trusting().get_ca_certs()
        api.objects.pop(SECRET)
        await until(lambda: SECRET in api.objects)
        assert api.objects[SECRET]["data"] == before
        assert (await server_.answer(review(GOOD)))["allowed"]
        assert server_.trusting().get_ca_certs() == bundle


async def test_what_others_do_to_the_secret_or_the_bundle_is_mended_at_once_with_an_event() -> None:
    api = shop()
    # The watch tells: no look for an hour.
    async with serving(api, recheck_s=3600) as server_:
        await until(lambda: len([call for call in api.calls if call.startswith("WATCH")]) == 3)
        client = api.objects[CONFIGURATION]["webhooks"][0]["clientConfig"]
        bundle = client["caBundle"]
        for damage in ("", base64.b64encode(b"-----BEGIN CERTIFICATE-----").decode()):
            client["caBundle"] = damage
            api.changed(CONFIGURATION)
            await until(lambda: client["caBundle"] == bundle)
        api.objects.pop(SECRET)
        api.changed(SECRET, "DELETED")
        await until(lambda: SECRET in api.objects)
        await until(lambda: len(api.posted()) == 4)
        assert api.posted() == [
            ("Normal", "CertificatesMade"),
            ("Warning", "CABundleRepaired"),
            ("Warning", "CABundleRepaired"),
            ("Warning", "CertificatesRestored"),
        ]
        scraped = (await server_.get("/metrics"))[1]
        assert 'ipvlan_bandwidth_certificate_changes_total{change="bundle_repaired"} 2.0' in scraped
        assert 'ipvlan_bandwidth_certificate_changes_total{change="restored"} 1.0' in scraped


async def test_an_event_that_the_api_server_does_not_take_keeps_nothing_from_being_mended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api = shop()
    create, posting = api.create, asyncio.Event()

    async def never(path: str, body: Json) -> Json:
        if path == EVENTS:
            posting.set()
            await asyncio.Event().wait()
        return await create(path, body)

    monkeypatch.setattr(api, "create", never)
    async with serving(api, recheck_s=3600):
        await until(posting.is_set)
        client = api.objects[CONFIGURATION]["webhooks"][0]["clientConfig"]
        bundle = client.pop("caBundle")
        api.changed(CONFIGURATION)
        await until(lambda: client.get("caBundle") == bundle)


async def test_what_no_watch_tells_is_mended_at_the_next_look() -> None:
    api = shop()
    async with serving(api, recheck_s=0.02):
        api.deaf = True
        api.objects.pop(SECRET)
        await until(lambda: SECRET in api.objects)


async def test_a_configuration_that_is_deleted_and_applied_again_gets_its_bundle_at_once() -> None:
    api = shop()
    async with serving(api, recheck_s=3600) as server_:
        await until(lambda: len([call for call in api.calls if call.startswith("WATCH")]) == 3)
        removed = api.objects.pop(CONFIGURATION)
        api.changed(CONFIGURATION, "DELETED")
        await asyncio.sleep(0.1)
        assert (await server_.get("/readyz"))[0] == 200
        fresh = {**removed, "webhooks": [{"name": "pods.ipvlan-bandwidth.io", "clientConfig": {}}]}
        api.objects[CONFIGURATION] = fresh
        api.changed(CONFIGURATION, "ADDED")
        await until(lambda: "caBundle" in api.objects[CONFIGURATION]["webhooks"][0]["clientConfig"])
        assert (await server_.answer(review(GOOD)))["allowed"]


async def test_two_replicas_rotate_under_requests_and_answer_every_one() -> None:
    api = shop()
    # A certificate's times are whole seconds, and a third of them is the machine's to stand still in.
    quick = Lifetimes(timedelta(seconds=5), timedelta(seconds=5), timedelta(seconds=0.3))
    changes = {"recheck_s": 0.05, "lifetimes": quick}
    async with running(api, **changes) as first, running(api, **changes) as second:
        await asyncio.gather(first.ready(), second.ready())
        bundles: set[str] = set()
        async with asyncio.timeout(20):
            while len(bundles) < 4:
                bundles.add(api.objects[CONFIGURATION]["webhooks"][0]["clientConfig"]["caBundle"])
                for each in (first, second):
                    # A connection of its own: a handshake with what is trusted and served just now.
                    response = await each.post(review(GOOD), headers={"Connection": "close"})
                    assert response.status == 200
                await asyncio.sleep(0.02)
    reasons = {reason for _, reason in api.posted()}
    assert {"CAAnnounced", "CARotated", "CertificateRenewed", "CARetired"} <= reasons
    assert not {"CertificatesRestored", "CABundleRepaired"} & reasons


async def test_two_replicas_that_start_at_once_are_both_trusted() -> None:
    api = shop()
    async with running(api) as first, running(api) as second:
        await asyncio.gather(first.ready(), second.ready())
        for each in (first, second):
            assert (await each.answer(review(GOOD)))["allowed"]


async def test_a_drain_is_unready_at_once_but_still_answers_and_sends_connections_away() -> None:
    api = shop()
    async with serving(api, drains=True) as server_:
        assert "Connection" not in (await server_.post(review(GOOD))).headers
        server_.stop.set()
        await server_.draining()
        assert await server_.get("/readyz") == (503, "draining: this replica is about to stop\n")
        response = await server_.post(review(GOOD))
        assert (response.status, response.headers["Connection"]) == (200, "close")
        server_.drained.set()
        await server_.task
        with pytest.raises(aiohttp.ClientConnectorError):
            await server_.post(review(GOOD))


async def test_what_lingers_on_open_connections_leaves_the_certificates_to_its_successors() -> None:
    api = shop()
    async with serving(api, linger_s=60.0, recheck_s=0.02) as server_:
        await server_.post(review(GOOD))  # the client keeps the connection
        server_.stop.set()
        await server_.draining()
        api.objects.pop(SECRET)
        api.changed(SECRET, "DELETED")
        await asyncio.sleep(0.2)
        assert not server_.task.done()
        await server_.session.close()
        await server_.task
        assert SECRET not in api.objects


async def test_a_secret_that_is_deleted_after_the_webhook_was_told_to_stop_stays_deleted() -> None:
    api = shop()
    async with serving(api, drains=True) as up:
        up.stop.set()
        await up.draining()
        del api.objects[SECRET]
        api.changed(SECRET, "DELETED")
        await asyncio.sleep(0.4)
        assert SECRET not in api.objects
        assert (await up.answer(review(GOOD)))["allowed"]  # what is open, or opened now, is served all the same


@pytest.mark.usefixtures("root_logger")
def test_the_command_serves_until_sigterm_and_exits_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("webhook.common.kubeapi.KubeApi.connect", connected)
    own, port = free_ports(2)
    args = parsed("--listen=127.0.0.1", f"--port={own}", f"--health-port={port}", "--drain-seconds=0")

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
    assert messages[0] == "starting"
    assert messages[-2:] == ["draining for 0.0 s", "stopped"]
    assert {"timestamp", "level", "logger", "version", "revision"} <= lines[0].keys()


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize("which", ["--port", "--health-port"])
def test_a_port_that_is_taken_is_told_in_a_sentence_and_exits_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    monkeypatch.setattr("webhook.common.kubeapi.KubeApi.connect", connected)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {**dict(zip(("--port", "--health-port"), free_ports(2), strict=True)), which: taken.getsockname()[1]}
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
    line = json.loads(ran.stdout.splitlines()[-1])
    assert line["level"] == "ERROR"
    assert "set KUBECONFIG" in line["message"]


def test_sigterm_during_the_imports_ends_it_by_itself_as_for_the_first_process_of_a_container() -> None:
    assert_ends_by_itself_at_sigterm("webhook", "serve", importing="webhook.server")
