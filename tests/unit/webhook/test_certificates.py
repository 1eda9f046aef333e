"""The Secret and the MutatingWebhookConfiguration, read and written through a small API server in memory."""

import base64
from typing import Any

import pytest

from certs.store import Published, StoredSecret
from tests.unit.webhook.fake_api import CONFIGURATION, SECRET, FakeApi
from webhook.certificates import KubeBundle, KubeSecret
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


def bundle_of(api: FakeApi) -> KubeBundle:
    return KubeBundle(api, "ipvlan-bandwidth")


async def test_a_bundle_is_patched_in_and_all_else_left_as_it_is() -> None:
    api = FakeApi()
    bundle = bundle_of(api)
    assert await bundle.read() == Published((b"",), "1")
    assert await bundle.replace(b"bundle", "1")
    assert await bundle.read() == Published((b"bundle",), "2")
    config = api.objects[CONFIGURATION]["webhooks"][0]["clientConfig"]
    assert config == {"service": {"name": "webhook"}, "caBundle": base64.b64encode(b"bundle").decode()}


async def test_a_bundle_is_not_put_over_one_that_came_after_what_was_read() -> None:
    api = FakeApi()
    slow, fast = bundle_of(api), bundle_of(api)
    await slow.read()
    await fast.read()
    assert await fast.replace(b"newer", "1")
    assert not await slow.replace(b"older", "1")
    assert (await slow.read()).bundles == (b"newer",)


async def test_a_configuration_without_webhooks_has_no_bundle() -> None:
    api = FakeApi()
    api.objects[CONFIGURATION]["webhooks"] = None
    assert (await bundle_of(api).read()).bundles == ()


async def test_a_missing_configuration_is_an_error_that_names_it() -> None:
    api = FakeApi()
    del api.objects[CONFIGURATION]
    for call in (bundle_of(api).read(), bundle_of(api).replace(b"bundle", "1")):
        with pytest.raises(ApiError, match="mutatingwebhookconfigurations/ipvlan-bandwidth not found"):
            await call
