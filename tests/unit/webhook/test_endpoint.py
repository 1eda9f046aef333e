"""Where KubeApi finds the API server and who it is there: a Pod's service account, or a person's kubeconfig."""

import errno
import json
import os
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from certs.credentials import Credentials
from certs.rotation import renew
from webhook.common.endpoint import ConfigurationError, from_kubeconfig, in_cluster
from webhook.common.kubeapi import ApiError, KubeApi
from webhook.listener import load, server_context


async def echo(request: web.Request) -> web.Response:
    return web.json_response({"method": request.method, "authorization": request.headers["Authorization"]})


@pytest.fixture
def credentials() -> Credentials:
    return renew(None, names=["localhost"], now=datetime.now(UTC)).credentials


def serve_with(context: ssl.SSLContext, credentials: Credentials) -> None:
    load(context, credentials.serving.certificate_pem() + credentials.serving.key_pem())


@pytest.fixture
def context(credentials: Credentials) -> ssl.SSLContext:
    made = server_context()
    serve_with(made, credentials)
    return made


@pytest.fixture
async def secure(context: ssl.SSLContext) -> AsyncIterator[TestServer]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", echo)
    server = TestServer(application, host="localhost", scheme="https")
    await server.start_server(ssl=context)
    yield server
    await server.close()


def service_account(folder: Path, credentials: Credentials, server: TestServer) -> dict[str, str]:
    (folder / "token").write_text("first\n")
    (folder / "ca.crt").write_bytes(credentials.trusted_pem())
    return {"KUBERNETES_SERVICE_HOST": "localhost", "KUBERNETES_SERVICE_PORT": str(server.port)}


async def test_in_a_pod_the_service_account_is_used_and_its_token_read_anew(
    tmp_path: Path, credentials: Credentials, secure: TestServer
) -> None:
    endpoint = in_cluster(service_account(tmp_path, credentials, secure), tmp_path)
    assert endpoint is not None
    api = KubeApi(endpoint, user_agent="t/1")
    assert (await api.get("/api"))["authorization"] == "Bearer first"
    (tmp_path / "token").write_text("second")
    assert (await api.get("/api"))["authorization"] == "Bearer second"
    (tmp_path / "token").unlink()
    with pytest.raises(ApiError, match="cannot read the service account's token"):
        await api.get("/api")
    await api.close()


async def test_a_server_of_another_authority_is_not_trusted(
    tmp_path: Path, credentials: Credentials, secure: TestServer
) -> None:
    environ = service_account(tmp_path, credentials, secure)
    other = renew(None, names=["localhost"], now=datetime.now(UTC)).credentials
    (tmp_path / "ca.crt").write_bytes(other.trusted_pem())
    endpoint = in_cluster(environ, tmp_path)
    assert endpoint is not None
    api = KubeApi(endpoint, user_agent="t/1")
    with pytest.raises(ApiError, match="certificate verify failed"):
        await api.get("/api")
    await api.close()


def replace_file(path: Path, content: bytes) -> None:
    """As kubelet does: another file takes the place of the former one."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)


async def test_a_ca_that_is_rotated_while_running_is_trusted_and_the_former_one_no_longer(
    tmp_path: Path, credentials: Credentials, context: ssl.SSLContext, secure: TestServer
) -> None:
    endpoint = in_cluster(service_account(tmp_path, credentials, secure), tmp_path)
    assert endpoint is not None
    api = KubeApi(endpoint, user_agent="t/1")
    await api.get("/api")
    rotated = renew(None, names=["localhost"], now=datetime.now(UTC)).credentials
    replace_file(tmp_path / "ca.crt", rotated.trusted_pem())
    with pytest.raises(ApiError, match="certificate verify failed"):
        await api.get("/api")
    serve_with(context, rotated)
    assert (await api.get("/api"))["method"] == "GET"
    await api.close()


async def test_a_ca_that_cannot_be_read_any_more_leaves_the_former_one_trusted_and_is_told_once(
    tmp_path: Path, credentials: Credentials, secure: TestServer, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = in_cluster(service_account(tmp_path, credentials, secure), tmp_path)
    assert endpoint is not None
    api = KubeApi(endpoint, user_agent="t/1")
    for damage in (lambda: replace_file(tmp_path / "ca.crt", b""), (tmp_path / "ca.crt").unlink):
        caplog.clear()
        damage()
        for _ in range(2):
            assert (await api.get("/api"))["method"] == "GET"
        (told,) = caplog.messages
        assert str(tmp_path / "ca.crt") in told
    await api.close()


def test_a_ca_that_could_not_be_read_once_is_tried_again(
    tmp_path: Path, credentials: Credentials, secure: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = in_cluster(service_account(tmp_path, credentials, secure), tmp_path)
    assert endpoint is not None
    former = endpoint.tls()
    replace_file(tmp_path / "ca.crt", credentials.trusted_pem())

    def out_of_descriptors(**_: object) -> ssl.SSLContext:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("webhook.common.endpoint.ssl.create_default_context", out_of_descriptors)
        assert endpoint.tls() is former
    assert endpoint.tls() is not former


def test_connections_are_kept_while_the_ca_stays_as_it_is(
    tmp_path: Path, credentials: Credentials, secure: TestServer
) -> None:
    endpoint = in_cluster(service_account(tmp_path, credentials, secure), tmp_path)
    assert endpoint is not None
    assert endpoint.tls() is endpoint.tls()


def test_an_ipv6_service_address_is_bracketed(tmp_path: Path, credentials: Credentials) -> None:
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_bytes(credentials.trusted_pem())
    endpoint = in_cluster({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, tmp_path)
    assert endpoint is not None
    assert endpoint.url == "https://[fd00::1]:443"


def test_outside_of_a_pod_there_is_no_service_account(tmp_path: Path) -> None:
    assert in_cluster({}, tmp_path) is None
    assert in_cluster({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}, tmp_path) is None


def test_a_service_account_without_its_ca_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    with pytest.raises(ConfigurationError, match=r"ca\.crt"):
        in_cluster({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}, tmp_path)


def kubeconfig(folder: Path, server: str, cluster: dict[str, object], user: dict[str, object]) -> dict[str, str]:
    path = folder / "config"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return {"KUBECONFIG": str(path)}


async def test_outside_of_a_pod_the_kubeconfig_is_used(
    tmp_path: Path, credentials: Credentials, secure: TestServer
) -> None:
    (tmp_path / "ca.crt").write_bytes(credentials.trusted_pem())
    (tmp_path / "u.crt").write_bytes(credentials.serving.certificate_pem())
    (tmp_path / "u.key").write_bytes(credentials.serving.key_pem())
    environ = kubeconfig(
        tmp_path,
        f"https://localhost:{secure.port}",
        {"certificate-authority": "ca.crt"},
        {"token": "mine", "client-certificate": "u.crt", "client-key": "u.key"},
    )
    api = await KubeApi.connect(user_agent="t/1", environ=environ)
    assert (await api.get("/api"))["authorization"] == "Bearer mine"
    await api.close()


async def test_a_kubeconfig_may_turn_verification_off(tmp_path: Path, secure: TestServer) -> None:
    environ = kubeconfig(
        tmp_path, f"https://127.0.0.1:{secure.port}", {"insecure-skip-tls-verify": True}, {"token": "mine"}
    )
    api = await KubeApi.connect(user_agent="t/1", environ=environ)
    assert (await api.get("/api"))["method"] == "GET"
    await api.close()


async def test_neither_pod_nor_kubeconfig_is_a_configuration_error_that_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="set KUBECONFIG"):
        await from_kubeconfig({"KUBECONFIG": f"{tmp_path}/none{os.pathsep}"})


async def test_a_pod_without_a_token_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"this Pod has no token at /var/run/.*automountServiceAccountToken"):
        await from_kubeconfig({"KUBECONFIG": f"{tmp_path}/none", "KUBERNETES_SERVICE_HOST": "10.96.0.1"})


async def test_a_broken_kubeconfig_is_a_configuration_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"cannot use the kubeconfig .*config: "):
        await from_kubeconfig({"KUBECONFIG": str(tmp_path / "config")})
