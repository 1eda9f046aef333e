"""A webhook with the manifests' own permissions at a real API server, first without those for Namespaces.

It prints JSON: what its readiness page and a person who creates a Pod are told meanwhile, and the Pod that is created
once it has all of them. tests/cluster/test_forbidden.py runs it.
"""

import json
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import layout
from tests.cluster.control_plane import ADDRESS, OURS, ControlPlane, ControlPlaneError

USER = f"system:serviceaccount:{OURS}:webhook"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ROLE = f"{RBAC}/clusterroles/ipvlan-bandwidth-webhook"
PORT = 8443
PODS = "/api/v1/namespaces/shop/pods?dryRun=All"
POD = {
    "metadata": {"name": "web", "annotations": {"kubernetes.io/ingress-bandwidth": "0.1G"}},
    "spec": {"containers": [{"name": "web", "image": "registry.example/web:1"}]},
}


def _permissions() -> list[dict[str, Any]]:
    text = (layout.PROJECT / "manifests" / "base" / "webhook-rbac.yaml").read_text()
    return [each for each in yaml.safe_load_all(text) if each["kind"] != "ServiceAccount"]


def _grant(control_plane: ControlPlane, objects: list[dict[str, Any]]) -> None:
    for each in objects:
        space = each["metadata"].get("namespace")
        kind = f"{each['kind'].lower()}s"
        control_plane.post(f"{RBAC}/namespaces/{space}/{kind}" if space else f"{RBAC}/{kind}", each)


def _readiness() -> str:
    try:
        with urllib.request.urlopen(f"http://{ADDRESS}:{PORT + 1}/readyz", timeout=5) as answer:
            said: bytes = answer.read()
    except urllib.error.HTTPError as error:
        said = error.read()
    return said.decode()


def _refusal(control_plane: ControlPlane) -> str:
    """What the API server says once it reaches the webhook, which it does not before there is a certificate."""

    def attempt() -> str:
        try:
            control_plane.post(PODS, POD)
        except ControlPlaneError as error:
            if "failed calling webhook" in str(error):
                raise
            return str(error)
        raise AssertionError("a Pod is created that the webhook could not decide on")

    return control_plane.wait_until("webhook that is reached", attempt)


def main() -> int:
    """Exit with 0 however it came out."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, ControlPlane(Path(folder)) as control_plane:
        control_plane.add_namespace(OURS, {})
        control_plane.add_namespace("shop", {"ipvlan-bandwidth.io/network": "kube-system.ipvlan"})
        control_plane.add_service("webhook")
        control_plane.add_configuration()
        role, *others = _permissions()
        without = {**role, "rules": [rule for rule in role["rules"] if "namespaces" not in rule["resources"]]}
        _grant(control_plane, [without, *others])
        control_plane.run_webhook("webhook", PORT, kubeconfig=control_plane.kubeconfig_of(USER))
        control_plane.add_endpoint("webhook", PORT)
        refusal, readiness = _refusal(control_plane), _readiness()
        control_plane.delete(ROLE)
        _grant(control_plane, [role])
        control_plane.wait_until_ready(PORT)
        created = control_plane.post(PODS, POD)
    print(json.dumps({"refusal": refusal, "readiness": readiness, "created": created}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
