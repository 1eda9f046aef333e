"""The overlay for cert-manager on the embedded cluster.

cert-manager itself is not there. The test does what it would do: it defines the kinds, and keeps the Secret that the
Certificate names, and the caBundle.
"""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from certs.authority import issue, make_authority, pem_of
from tests.cluster import scenario
from tests.cluster.api import Api
from tests.cluster.cluster import wait_for
from tests.cluster.creations import Creating
from tests.cluster.layout import PROJECT
from tests.cluster.scenario import OWN, WEBHOOK

SPACE = "cert-manager-shop"
NAMES = [f"webhook.{OWN}.svc", f"webhook.{OWN}.svc.cluster.local", f"webhook.{OWN}"]
DAY = timedelta(days=1)
AUTHORITY = make_authority(datetime.now(UTC), 30 * DAY)
LEFT_OVER = ("role/webhook", "rolebinding/webhook", "secret/webhook-certs")


def kind(plural, name):
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.cert-manager.io"},
        "spec": {
            "group": "cert-manager.io",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": name},
            "versions": [version],
        },
    }


def encoded(content):
    return base64.b64encode(content).decode()


def issue_into_the_secret(cluster):
    """As cert-manager: a new certificate in the Secret that the webhook's Pods mount; gives its serial number."""
    made = issue(AUTHORITY, NAMES, datetime.now(UTC), DAY)
    files = {"ca.crt": pem_of(AUTHORITY.certificate), "tls.crt": made.certificate_pem(), "tls.key": made.key_pem()}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "webhook-certificate", "namespace": OWN},
        "type": "kubernetes.io/tls",
        "data": {name: encoded(content) for name, content in files.items()},
    }
    cluster.apply(json.dumps(secret))
    return made.certificate.serial_number


def inject_the_ca(cluster):
    """As cert-manager's cainjector."""
    bundle = encoded(pem_of(AUTHORITY.certificate))
    patch = [{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]
    cluster.kubectl("patch", "mutatingwebhookconfiguration", OWN, "--type=json", "-p", json.dumps(patch))


def served(cluster):
    """The serial numbers of the certificates that the replicas serve."""
    script = "import ssl, sys; print(*(ssl.get_server_certificate((a, 8443)) for a in sys.argv[1:]), sep='')"
    addresses = [pod["status"]["podIP"] for pod in scenario.webhooks(cluster)]
    text = cluster.node(1).run("python3", "-c", script, *addresses).stdout
    return {certificate.serial_number for certificate in x509.load_pem_x509_certificates(text.encode())}


@pytest.fixture(scope="module")
def installed(cluster):
    scenario.install(cluster)
    scenario.namespace(cluster, SPACE)
    for each in (kind("issuers", "Issuer"), kind("certificates", "Certificate")):
        cluster.apply(json.dumps(each))
        name = f"crd/{each['metadata']['name']}"
        cluster.kubectl("wait", "--for=condition=Established", name, "--timeout=30s")
    return cluster


def test_from_our_own_certificates_to_cert_managers_and_back(installed):
    issued = issue_into_the_secret(installed)
    installed.kubectl("apply", "-k", str(PROJECT / "manifests" / "cert-manager"))
    inject_the_ca(installed)
    scenario.roll_out_webhook(installed)
    installed.kubectl("-n", OWN, "delete", *LEFT_OVER)
    assert served(installed) == {issued}

    with Creating(installed, SPACE) as creations:
        renewed = issue_into_the_secret(installed)
        # Else kubelet looks once a minute.
        installed.kubectl("-n", OWN, "annotate", "pod", "-l", WEBHOOK, "test/look=now")
        wait_for("the renewed certificate", lambda: served(installed) == {renewed}, 120, every=1)
    assert creations.made > 0
    assert creations.lost + creations.refusals == []
    with Api(installed) as api:
        bundle = api.get(f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{OWN}")
    assert bundle["webhooks"][0]["clientConfig"]["caBundle"] == encoded(pem_of(AUTHORITY.certificate))

    installed.kubectl("delete", "-f", str(PROJECT / "manifests" / "cert-manager" / "certificates.yaml"))
    scenario.install(installed)
    scenario.roll_out_webhook(installed)
    with Creating(installed, SPACE, workers=1) as creations:
        wait_for("a Pod", lambda: creations.made, 30)
    assert creations.lost + creations.refusals == []
    assert not served(installed) & {issued, renewed}
