"""The overlay of docs/operations.md for a registry that asks who pulls, as kubectl renders it."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.unit.manifests.overlays import block
from tests.unit.manifests.test_manifests import CERT_MANAGER, MANIFESTS, kubectl, rendered

OPERATIONS = "docs/operations.md"
OWN, CLEAN = "ipvlan-bandwidth", "ipvlan-bandwidth-clean"


@pytest.mark.parametrize(
    ("folder", "namespace", "owners"),
    [
        (MANIFESTS, OWN, {"webhook", "reconciler"}),
        (CERT_MANAGER, OWN, {"webhook", "reconciler"}),
        (MANIFESTS / "clean", CLEAN, {"clean"}),
    ],
    ids=["manifests", "cert-manager", "clean"],
)
def test_each_pod_names_a_secret_that_comes_after_its_namespace_and_before_it(
    folder: Path, namespace: str, owners: set[str], tmp_path: Path
) -> None:
    overlay = block(OPERATIONS, "Images", "imagePullSecrets")
    there = os.path.relpath(folder, tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(overlay.replace("../manifests", there))
    printed = block(OPERATIONS, "Images", "create secret").replace("\\\n", "").replace(f"-n {OWN}", f"-n {namespace}")
    command, *arguments = shlex.split(printed)
    assert command == "kubectl"
    secret = subprocess.run([kubectl(), *arguments], capture_output=True, text=True, check=True).stdout
    (tmp_path / "pull.yaml").write_text(secret)

    applied = rendered(tmp_path)
    order = [(each["kind"], each["metadata"]["name"]) for each in applied]
    (secret_at,) = [place for place, (kind, _) in enumerate(order) if kind == "Secret"]
    assert applied[secret_at]["metadata"]["namespace"] == namespace
    assert order.index(("Namespace", namespace)) < secret_at
    workloads = [place for place, (kind, _) in enumerate(order) if kind in {"Deployment", "DaemonSet"}]
    assert {order[place][1] for place in workloads} == owners
    for place in workloads:
        assert secret_at < place
        assert applied[place]["metadata"]["namespace"] == namespace
        pull = applied[place]["spec"]["template"]["spec"]["imagePullSecrets"]
        assert pull == [{"name": applied[secret_at]["metadata"]["name"]}]
