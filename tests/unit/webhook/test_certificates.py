"""The Secret and the MutatingWebhookConfiguration, read and written through a small API server in memory."""

import base64
import ssl
from datetime import UTC, datetime
from typing import Any

import pytest

from certs.authority import renew
from certs.store import StoredSecret
from tests.unit.webhook.fake_api import CONFIGURATION, SECRET, FakeApi
from webhook.certificates import KubeSecret, serve_with, server_context, trust
from webhook.kubeapi import ApiError


def secret_of(api: FakeApi) -> KubeSecret:
    return KubeSecret(api, "ipvlan-bandwidth", "webhook-certs")


async def test_a_secret_is_created_read_and_replaced() -> None:
    api = FakeApi()
    secret = secret_of(api)
    assert await secret.read() is None
    assert await secret.create({"tls.crt": "YQ=="})
    assert await secret.read() == StoredSecret({"tls.crt": "YQ=="}, "1")
    assert await secret.replace({"tls.crt": "Yg=="}, "1")
    assert await secret.read() == StoredSecret({"tls.crt": "Yg=="}, "2")


async def test_it_says_what_it_is_and_whose() -> None:
    api = FakeApi()
    await secret_of(api).create({})
    assert api.objects[SECRET]["type"] == "kubernetes.io/tls"
    assert api.objects[SECRET]["metadata"]["labels"]["app.kubernetes.io/part-of"] == "ipvlan-bandwidth"


async def test_whoever_comes_second_is_told_so() -> None:
    api = FakeApi()
    first, second = secret_of(api), secret_of(api)
    assert await first.create({"a": ""})
    assert not await second.create({"b": ""})
    await first.read()
    await second.read()
    assert await second.replace({"b": ""}, "1")
    assert not await first.replace({"a": ""}, "1")
    del api.objects[SECRET]
    assert not await second.replace({"b": ""}, "2")


async def test_replacing_keeps_the_type_and_labels_that_a_person_gave_it() -> None:
    api = FakeApi()
    api.objects[SECRET] = {
        "type": "Opaque",
        "metadata": {"name": "webhook-certs", "resourceVersion": "4", "labels": {"team": "net"}},
    }
    secret = secret_of(api)
    assert await secret.read() == StoredSecret({}, "4")
    assert await secret.replace({"a": "YQ=="}, "4")
    stored = api.objects[SECRET]
    assert (stored["type"], stored["metadata"]["labels"], stored["data"]) == ("Opaque", {"team": "net"}, {"a": "YQ=="})


@pytest.mark.parametrize("method", ["read", "create", "replace"])
async def test_other_failures_pass_through(method: str) -> None:
    api = FakeApi()
    secret = secret_of(api)
    await secret.create({})
    await secret.read()
    api.down = True
    arguments: dict[str, tuple[Any, ...]] = {"read": (), "create": ({},), "replace": ({}, "1")}
    with pytest.raises(ApiError):
        await getattr(secret, method)(*arguments[method])


async def test_a_bundle_is_patched_in_once() -> None:
    api = FakeApi()
    await trust(api, "ipvlan-bandwidth", b"bundle")
    await trust(api, "ipvlan-bandwidth", b"bundle")
    config = api.objects[CONFIGURATION]["webhooks"][0]["clientConfig"]
    assert config == {"service": {"name": "webhook"}, "caBundle": base64.b64encode(b"bundle").decode()}
    assert [call for call in api.calls if call.startswith("PATCH")] == [f"PATCH {CONFIGURATION}"]


async def test_another_bundle_is_replaced_and_a_configuration_without_webhooks_left_alone() -> None:
    api = FakeApi()
    await trust(api, "ipvlan-bandwidth", b"old")
    await trust(api, "ipvlan-bandwidth", b"new")
    assert base64.b64decode(api.objects[CONFIGURATION]["webhooks"][0]["clientConfig"]["caBundle"]) == b"new"
    api.objects[CONFIGURATION]["webhooks"] = None
    await trust(api, "ipvlan-bandwidth", b"newer")


async def test_a_missing_configuration_is_an_error_that_names_it() -> None:
    api = FakeApi()
    del api.objects[CONFIGURATION]
    with pytest.raises(ApiError, match="mutatingwebhookconfigurations/ipvlan-bandwidth not found"):
        await trust(api, "ipvlan-bandwidth", b"bundle")


def test_the_server_speaks_tls_from_1_2_on_with_a_key_that_is_on_no_disk() -> None:
    context = server_context()
    serve_with(context, renew(None, names=["webhook"], now=datetime.now(UTC)).credentials)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
