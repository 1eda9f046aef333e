"""The Secret and the MutatingWebhookConfiguration, read and written through a small API server in memory."""

import base64
from typing import Any

import pytest

from certs.store import Published
from tests.unit.webhook.fake_api import CONFIGURATION, SECRET, FakeApi
from webhook.certificates import KubeBundle, KubeSecret
from webhook.common.kubeapi import ApiError

WEBHOOK = "pods.ipvlan-bandwidth.io"


def secret_of(api: FakeApi) -> KubeSecret:
    return KubeSecret(api, "ipvlan-bandwidth", "webhook-certs")


async def test_a_secret_is_created_read_and_replaced() -> None:
    api = FakeApi()
    secret = secret_of(api)
    assert await secret.read() is None
    assert await secret.create({"tls.crt": "YQ=="})
    assert (first := await secret.read()).data == {"tls.crt": "YQ=="}
    assert await secret.replace(first, {"tls.crt": "Yg=="})
    assert (await secret.read()).data == {"tls.crt": "Yg=="}


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
    read = await first.read()
    assert await second.replace(await second.read(), {"b": ""})
    assert not await first.replace(read, {"a": ""})
    read = await second.read()
    del api.objects[SECRET]
    assert not await second.replace(read, {"b": ""})


async def test_replacing_keeps_the_type_and_labels_that_a_person_gave_it() -> None:
    api = FakeApi()
    api.objects[SECRET] = {
        "type": "Opaque",
        "metadata": {"name": "webhook-certs", "resourceVersion": "4", "labels": {"team": "net"}},
    }
    secret = secret_of(api)
    assert (read := await secret.read()).data == {}
    assert await secret.replace(read, {"a": "YQ=="})
    stored = api.objects[SECRET]
    assert (stored["type"], stored["metadata"]["labels"], stored["data"]) == ("Opaque", {"team": "net"}, {"a": "YQ=="})


@pytest.mark.parametrize("method", ["read", "create", "replace"])
async def test_other_failures_pass_through(method: str) -> None:
    api = FakeApi()
    secret = secret_of(api)
    await secret.create({})
    read = await secret.read()
    api.down = True
    arguments: dict[str, tuple[Any, ...]] = {"read": (), "create": ({},), "replace": (read, {})}
    with pytest.raises(ApiError):
        await getattr(secret, method)(*arguments[method])


def bundle_of(api: FakeApi) -> KubeBundle:
    return KubeBundle(api, "ipvlan-bandwidth")


async def test_a_bundle_is_patched_in_and_all_else_left_as_it_is() -> None:
    api = FakeApi()
    bundle = bundle_of(api)
    assert (read := await bundle.read()) == Published({WEBHOOK: b""}, "1")
    assert await bundle.replace(read, b"bundle")
    assert await bundle.read() == Published({WEBHOOK: b"bundle"}, "2")
    config = api.objects[CONFIGURATION]["webhooks"][0]["clientConfig"]
    assert config == {"service": {"name": "webhook"}, "caBundle": base64.b64encode(b"bundle").decode()}


async def test_a_bundle_is_not_put_over_one_that_came_after_what_was_read() -> None:
    api = FakeApi()
    slow, fast = bundle_of(api), bundle_of(api)
    read = await slow.read()
    assert await fast.replace(await fast.read(), b"newer")
    assert not await slow.replace(read, b"older")
    assert (await slow.read()).bundles == {WEBHOOK: b"newer"}


@pytest.mark.parametrize("none", [None, []])
async def test_a_configuration_without_webhooks_is_an_error_as_a_missing_one(none: list[Any] | None) -> None:
    """API servers would ask nobody, and no bundle in it is another than it should be."""
    api = FakeApi()
    api.objects[CONFIGURATION]["webhooks"] = none
    with pytest.raises(ApiError, match="ipvlan-bandwidth has no webhook") as caught:
        await bundle_of(api).read()
    assert caught.value.status == 404


async def test_a_missing_configuration_is_an_error_that_names_it() -> None:
    api = FakeApi()
    del api.objects[CONFIGURATION]
    for call in (bundle_of(api).read(), bundle_of(api).replace(Published({WEBHOOK: b""}, "1"), b"bundle")):
        with pytest.raises(ApiError, match="mutatingwebhookconfigurations/ipvlan-bandwidth not found"):
            await call
