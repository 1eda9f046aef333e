"""The overlay for cert-manager, as kubectl renders it: whose certificate is served, trusted, and by what right."""

import argparse
from typing import Any

import pytest

from tests.unit.manifests.test_manifests import CERT_MANAGER, INSTALLED, Object, one, rendered
from webhook.settings import SECRET, add_arguments, settings_of


@pytest.fixture(scope="module")
def overlay() -> list[Object]:
    return rendered(CERT_MANAGER)


def container(overlay: list[Object]) -> tuple[Object, Object]:
    """The webhook's Pod and its container."""
    pod = one("Deployment", "webhook", overlay)["spec"]["template"]["spec"]
    (only,) = pod["containers"]
    return pod, only


def settings(overlay: list[Object]) -> Any:
    _, only = container(overlay)
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    assert only["command"] == ["python3", "-m", "webhook", "serve"]
    return settings_of(parser.parse_args(only.get("args", [])))


def test_one_setting_turns_our_own_issuing_off(overlay: list[Object]) -> None:
    assert settings(INSTALLED).certificates is None
    assert str(settings(overlay).certificates) == "/certificates"


def test_the_webhook_reads_the_secret_that_cert_manager_writes(overlay: list[Object]) -> None:
    pod, only = container(overlay)
    (mount,) = only["volumeMounts"]
    assert mount == {"name": "certificates", "mountPath": str(settings(overlay).certificates), "readOnly": True}
    (volume,) = pod["volumes"]
    assert volume["name"] == mount["name"]
    certificate = one("Certificate", "webhook", overlay)
    assert volume["secret"]["secretName"] == certificate["spec"]["secretName"]
    # Not the Secret of our own issuing: to go back must not find another's in its place.
    assert certificate["spec"]["secretName"] != SECRET
    # The user that it runs as may read it, and nobody else.
    assert volume["secret"]["defaultMode"] == 0o440
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]


def test_the_certificate_is_for_all_names_that_the_webhook_is_called_by(overlay: list[Object]) -> None:
    spec = one("Certificate", "webhook", overlay)["spec"]
    assert tuple(spec["dnsNames"]) == settings(overlay).names
    assert spec["usages"] == ["server auth"]


def test_api_servers_trust_the_certificates_ca(overlay: list[Object]) -> None:
    annotations = one("MutatingWebhookConfiguration", "ipvlan-bandwidth", overlay)["metadata"]["annotations"]
    namespace, name = annotations["cert-manager.io/inject-ca-from"].split("/")
    assert one("Certificate", name, overlay)["metadata"]["namespace"] == namespace


def test_every_issuer_that_is_named_is_there_and_the_ca_keeps_its_key(overlay: list[Object]) -> None:
    for certificate in (o for o in overlay if o["kind"] == "Certificate"):
        reference = certificate["spec"]["issuerRef"]
        one(reference["kind"], reference["name"], overlay)
        assert certificate["spec"]["privateKey"]["algorithm"] == "ECDSA"
    authority = one("Certificate", "webhook-ca", overlay)["spec"]
    assert one("Issuer", "webhook-ca", overlay)["spec"]["ca"]["secretName"] == authority["secretName"]
    assert authority["isCA"] is True
    assert authority["privateKey"]["rotationPolicy"] == "Never"


def test_the_webhook_may_do_nothing_but_read_namespaces(overlay: list[Object]) -> None:
    assert not [o for o in overlay if o["kind"] in {"Role", "RoleBinding"}]
    (rule,) = one("ClusterRole", "ipvlan-bandwidth-webhook", overlay)["rules"]
    assert (rule["resources"], rule["verbs"]) == (["namespaces"], ["get", "list", "watch"])


def test_all_else_is_as_without_it(overlay: list[Object]) -> None:
    changed = {"Issuer", "Certificate", "Role", "RoleBinding"}
    assert {(o["kind"], o["metadata"]["name"]) for o in overlay if o["kind"] not in changed} == {
        (o["kind"], o["metadata"]["name"]) for o in INSTALLED if o["kind"] not in changed
    }
    assert all(o["metadata"]["labels"]["app.kubernetes.io/part-of"] == "ipvlan-bandwidth" for o in overlay)
