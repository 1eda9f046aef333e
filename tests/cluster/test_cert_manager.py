"""The overlay for cert-manager on the embedded cluster, with cert-manager itself."""

import base64
import json
from datetime import UTC, datetime

import pytest
from cryptography import x509

from tests.cluster import cert_manager, scenario
from tests.cluster.api import Api
from tests.cluster.cluster import wait_for
from tests.cluster.creations import Creating
from tests.cluster.layout import PROJECT
from tests.cluster.scenario import OWN, WEBHOOK
from tests.losses import nothing_lost

SPACE = "cert-manager-shop"
OVERLAY = PROJECT / "manifests" / "cert-manager"
LEFT_OVER = ("role/webhook", "rolebinding/webhook", "secret/webhook-certs")
ACCOUNT = f"--as=system:serviceaccount:{OWN}:webhook"


@pytest.fixture(scope="module")
def installed(cluster):
    """With certificates of our own, and cert-manager beside it."""
    scenario.install(cluster)
    scenario.namespace(cluster, SPACE)
    cert_manager.define(cluster.kubectl)
    with cert_manager.running(cluster.paths.kubeconfig, cluster.paths.logs / "cert-manager.log"):
        yield cluster


def held(cluster, secret):
    """The certificate and its CA's that a Secret holds."""
    data = cluster.kubectl_json("-n", OWN, "get", "secret", secret)["data"]
    return tuple(x509.load_pem_x509_certificate(base64.b64decode(data[name])) for name in ("tls.crt", "ca.crt"))


def issued(cluster):
    """The same of cert-manager's, once the Certificate is ready."""
    cluster.kubectl("-n", OWN, "wait", "--for=condition=Ready", "certificate/webhook", "--timeout=60s")
    return held(cluster, "webhook-certificate")


def renew(cluster, certificate):
    """As `cmctl renew`; returns when cert-manager has done it."""
    before = cluster.kubectl_json("-n", OWN, "get", "certificate", certificate)["status"]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    wanted = {"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "lastTransitionTime": now}
    patch = [{"op": "add", "path": "/status/conditions/-", "value": wanted}]
    patching = ("patch", "certificate", certificate, "--subresource=status", "--type=json", "-p", json.dumps(patch))
    cluster.kubectl("-n", OWN, *patching)
    revision = f"--for=jsonpath={{.status.revision}}={before['revision'] + 1}"
    cluster.kubectl("-n", OWN, "wait", revision, f"certificate/{certificate}", "--timeout=60s")


def served(cluster):
    """The certificates that the replicas serve."""
    script = "import ssl, sys; print(*(ssl.get_server_certificate((a, 8443)) for a in sys.argv[1:]), sep='')"
    addresses = [pod["status"]["podIP"] for pod in scenario.webhooks(cluster)]
    text = cluster.node(1).run("python3", "-c", script, *addresses).stdout
    return set(x509.load_pem_x509_certificates(text.encode()))


def wait_until_served(cluster, certificate):
    # Else kubelet looks once a minute.
    cluster.kubectl(
        "-n", OWN, "annotate", "pod", "-l", WEBHOOK, "--overwrite", f"test/look={certificate.serial_number}"
    )
    wait_for("the new certificate", lambda: served(cluster) == {certificate}, 120, every=1)


def trusted(cluster):
    """The CAs of the caBundle."""
    with Api(cluster) as api:
        configuration = api.get(f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{OWN}")
    bundle = configuration["webhooks"][0]["clientConfig"].get("caBundle", "")
    return set(x509.load_pem_x509_certificates(base64.b64decode(bundle))) if bundle else set()


def replicas(cluster):
    """The webhook's containers, which another has when one was restarted."""
    return {pod["status"]["containerStatuses"][0]["containerID"] for pod in scenario.webhooks(cluster)}


def test_it_takes_over_from_our_own_certificates(installed):
    before = trusted(installed)
    with Creating(installed, SPACE) as creations:
        installed.kubectl("apply", "-k", str(OVERLAY))
        scenario.roll_out_webhook(installed)
        made = creations.made
        wait_for("Pods that the new replicas admit", lambda: creations.made > made + 2, 30)
    nothing_lost([*creations.lost, *creations.refusals])
    installed.kubectl("-n", OWN, "delete", "--ignore-not-found", *LEFT_OVER)
    certificate, authority = issued(installed)
    assert served(installed) == {certificate}
    assert trusted(installed) == {*before, authority}


def test_the_webhook_refuses_what_it_should(installed):
    bad = scenario.pod("bad", namespace=SPACE, annotations=scenario.limits("1m"))
    done = installed.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(bad), check=False)
    assert 'did you mean "1M"?' in done.stderr


@pytest.mark.parametrize(
    ("right", "answer"),
    [
        ("list namespaces", "yes"),
        ("get secrets/webhook-certificate", "no"),
        ("list secrets", "no"),
        (f"patch mutatingwebhookconfigurations/{OWN}", "no"),
    ],
)
def test_the_webhook_has_no_right_to_what_cert_manager_keeps(installed, right, answer):
    asked = installed.kubectl("-n", OWN, "auth", "can-i", *right.split(), ACCOUNT, check=False)
    assert asked.stdout.strip() == answer


@pytest.mark.parametrize("how", [(), ("--server-side",)])
def test_applied_again_the_ca_stays(installed, how):
    before = trusted(installed)
    installed.kubectl("apply", *how, "-k", str(OVERLAY))
    assert trusted(installed) == before


def test_the_ca_before_is_taken_out_as_the_documentation_says(installed):
    _, authority = issued(installed)
    patch = '[{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]'
    installed.kubectl("patch", "mutatingwebhookconfiguration", OWN, "--type=json", "-p", patch)
    wait_for("cert-manager's CA alone", lambda: trusted(installed) == {authority}, 30)


def renew_the_certificate(cluster):
    renew(cluster, "webhook")


def renew_the_ca_and_the_certificate(cluster):
    _, before = issued(cluster)
    renew(cluster, "webhook-ca")
    renew(cluster, "webhook")
    _, authority = issued(cluster)
    assert authority != before


def lose_the_secret(cluster):
    cluster.kubectl("-n", OWN, "delete", "secret", "webhook-certificate")
    cluster.kubectl("-n", OWN, "wait", "--for=create", "secret/webhook-certificate", "--timeout=60s")


@pytest.mark.parametrize("happens", [renew_the_certificate, renew_the_ca_and_the_certificate, lose_the_secret])
def test_a_new_certificate_is_served_without_a_restart_and_no_creation_fails(installed, happens):
    (before, _), running = issued(installed), replicas(installed)
    with Creating(installed, SPACE) as creations:
        happens(installed)
        renewed, authority = issued(installed)
        wait_until_served(installed, renewed)
    nothing_lost([*creations.lost, *creations.refusals])
    assert creations.made > 0
    assert renewed != before
    assert replicas(installed) == running
    assert authority in trusted(installed)
    # Until kubelet has brought the new one, replicas serve this; before 1.19, cainjector left no CA but the last.
    before.verify_directly_issued_by(authority)


def test_and_back_to_our_own(installed):
    with Creating(installed, SPACE) as creations:
        installed.kubectl("delete", "--ignore-not-found", "-f", str(OVERLAY / "certificates.yaml"))
        scenario.install(installed)
        scenario.roll_out_webhook(installed)
        made = creations.made
        wait_for("Pods that the new replicas admit", lambda: creations.made > made + 2, 30)
    nothing_lost([*creations.lost, *creations.refusals])
    certificate, _ = held(installed, "webhook-certs")
    assert served(installed) == {certificate}
    _, authority = held(installed, "webhook-certificate")
    # Its name is that of a CA of ours, so it is one of the former: replicas served what it signed until now.
    assert authority in trusted(installed)
