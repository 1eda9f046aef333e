"""Certificates that others put into a folder, as kubelet does with cert-manager's Secret."""

import asyncio
import base64
import errno
import logging
import os
import socket
from pathlib import Path

import pytest
from aiohttp import web

from certs.authority import KeyPair
from tests.unit.webhook.fake_api import CONFIGURATION, SECRETS, FakeApi, shop
from tests.unit.webhook.running_server import GOOD, review, running, serving
from tests.unit.webhook.serving_certificates import AUTHORITY, pair, served
from tests.waiting import until
from webhook.common.http_server import BoundedServer
from webhook.listener import Listener
from webhook.metrics import Metrics
from webhook.mounted_certificates import MountedCertificates


def mount(folder: Path, made: KeyPair, version: int) -> None:
    """As kubelet: a folder a version, and a link that moves from one to the next at once."""
    inside = folder / f"..{version}"
    inside.mkdir()
    (inside / "tls.crt").write_bytes(made.certificate_pem())
    (inside / "tls.key").write_bytes(made.key_pem())
    link = folder / "..new"
    link.symlink_to(inside.name)
    link.rename(folder / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")


async def until_served(port: int, wanted: int) -> None:
    async def is_served() -> bool:
        return await served(port) == wanted

    await until(is_served)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook.mounted_certificates.POLL_S", 0.01)


def bundle_by_others(api: FakeApi) -> None:
    api.objects[CONFIGURATION]["webhooks"][0]["clientConfig"]["caBundle"] = base64.b64encode(
        AUTHORITY.certificate_pem()
    ).decode()


async def test_it_serves_with_them_follows_them_and_touches_nothing_in_the_cluster(tmp_path: Path) -> None:
    api = shop()
    bundle_by_others(api)
    first, second = pair(), pair()
    mount(tmp_path, first, 1)
    async with serving(api, certificates=tmp_path) as server:
        assert (await server.answer(review(GOOD)))["allowed"]
        assert await served(server.settings.port) == first.certificate.serial_number
        mount(tmp_path, second, 2)
        await until_served(server.settings.port, second.certificate.serial_number)
        assert (await server.answer(review(GOOD)))["allowed"]
    assert not [call for call in api.calls if SECRETS in call or "mutatingwebhook" in call]


async def test_it_waits_for_a_mount_and_says_so(tmp_path: Path) -> None:
    api = FakeApi()
    async with running(api, certificates=tmp_path) as server:
        await server.says("is the Secret with the certificate mounted there?")
        text = (await server.readyz())[1]
        assert f"waiting for a certificate that API servers trust: cannot read {tmp_path}/tls.crt" in text
        mount(tmp_path, pair(), 1)
        await server.ready()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "webhook.mounted_certificates"]


async def test_damage_is_told_once_and_the_certificate_before_is_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api = shop()
    bundle_by_others(api)
    first = pair()
    mount(tmp_path, first, 1)
    async with serving(api, certificates=tmp_path) as server:
        with caplog.at_level(logging.WARNING, logger="webhook.mounted_certificates"):
            (tmp_path / "..data" / "tls.key").write_bytes(pair().key_pem())
            await until(lambda: warnings(caplog))
            await asyncio.sleep(0.1)
        (said,) = warnings(caplog)
        assert said.startswith(f"still serving with the certificate before: {tmp_path} holds no certificate")
        assert await served(server.settings.port) == first.certificate.serial_number
        assert (await server.get("/readyz"))[0] == 200


async def test_a_renewal_for_which_no_descriptor_is_left_is_told_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    api = shop()
    bundle_by_others(api)
    first, second = pair(), pair()
    mount(tmp_path, first, 1)
    async with serving(api, certificates=tmp_path) as server:
        with monkeypatch.context() as short, caplog.at_level(logging.WARNING, logger="webhook.mounted_certificates"):
            short.setattr("os.memfd_create", none_left)
            mount(tmp_path, second, 2)
            await until(lambda: warnings(caplog))
            assert await served(server.settings.port) == first.certificate.serial_number
        await until_served(server.settings.port, second.certificate.serial_number)
    problem = f"cannot load the certificate in {tmp_path}: Too many open files"
    assert warnings(caplog) == [f"still serving with the certificate before: {problem}"]


async def test_a_port_that_is_taken_ends_it(tmp_path: Path) -> None:
    async def none(_request: web.BaseRequest) -> web.Response:
        raise AssertionError

    mount(tmp_path, pair(), 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listener = Listener(BoundedServer(none), "127.0.0.1", taken.getsockname()[1], Metrics())
        with pytest.raises(OSError, match="address already in use"):
            await MountedCertificates(tmp_path, listener, lambda _: None).run()
