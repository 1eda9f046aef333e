"""What docs/operations.md has people add on AKS, on OpenShift, and for Argo CD, as kubectl renders it."""

import os
from pathlib import Path

import pytest
import yaml

from tests.unit.manifests.overlays import block, patched
from tests.unit.manifests.test_manifests import CERT_MANAGER, INSTALLED, MANIFESTS, one, rendered
from tests.unit.manifests.test_overlays import OPERATIONS, each_installation

NAME = "ipvlan-bandwidth"


@each_installation
def test_aks_is_told_to_leave_the_configuration_alone_and_all_else_is_as_it_was(folder: Path, tmp_path: Path) -> None:
    before, after = rendered(folder), patched(block(OPERATIONS, "Clouds", "enforcer"), folder, tmp_path)
    annotations = one("MutatingWebhookConfiguration", NAME, after)["metadata"]["annotations"]
    assert annotations.pop("admissions.enforcer/disabled") == "true"
    if folder == CERT_MANAGER:
        assert annotations  # cert-manager's own must stay
    else:
        del one("MutatingWebhookConfiguration", NAME, after)["metadata"]["annotations"]
    assert after == before


@pytest.mark.parametrize(
    ("folder", "file", "wanted"),
    [
        (
            MANIFESTS,
            "deploy/openshift.yaml",
            {("DaemonSet", "reconciler"): "privileged", ("Deployment", "webhook"): "nonroot-v2"},
        ),
        (MANIFESTS / "clean", "deploy-clean/openshift.yaml", {("DaemonSet", "clean"): "privileged"}),
    ],
    ids=["deploy", "deploy-clean"],
)
def test_on_openshift_every_pod_has_a_constraint_bound_to_its_account(
    folder: Path, file: str, wanted: dict[tuple[str, str], str], tmp_path: Path
) -> None:
    text = block(OPERATIONS, "OpenShift", f"# {file}")
    (tmp_path / "openshift.yaml").write_text(text)
    (said,) = [line for line in text.splitlines() if "resources:" in line]
    overlay = yaml.safe_load(said[said.index("resources:") :])
    assert overlay["resources"][0] == f"../{folder.relative_to(MANIFESTS.parent)}"
    overlay["resources"][0] = os.path.relpath(folder, tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    applied = rendered(tmp_path)
    bound = {}
    for binding in applied:
        role = binding.get("roleRef", {}).get("name", "")
        if role.startswith("system:openshift:scc:"):
            (subject,) = binding["subjects"]
            assert binding["metadata"]["namespace"] == subject["namespace"]
            bound[subject["namespace"], subject["name"]] = role.removeprefix("system:openshift:scc:")
    for (kind, name), constraint in wanted.items():
        workload = one(kind, name, applied)
        account = workload["spec"]["template"]["spec"].get("serviceAccountName", "default")
        assert bound.pop((workload["metadata"]["namespace"], account)) == constraint
    assert bound == {}


def test_argo_cd_is_told_of_the_field_that_the_webhook_writes() -> None:
    (ignored,) = yaml.safe_load(block(OPERATIONS, "Argo CD and Flux", "ignoreDifferences"))["ignoreDifferences"]
    configuration = one(ignored["kind"], ignored["name"], INSTALLED)
    assert configuration["apiVersion"].split("/")[0] == ignored["group"]
    assert ignored["jqPathExpressions"] == [".webhooks[]?.clientConfig.caBundle"]
    assert all("clientConfig" in webhook for webhook in configuration["webhooks"])
