"""New and restored clusters in docs/operations.md: Pods that came before the webhook's configuration are found."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.manifests.overlays import block
from tests.unit.manifests.test_manifests import Object
from webhook.common.contract import (
    DEFAULT_NETWORK_ANNOTATION,
    EGRESS_ANNOTATION,
    INGRESS_ANNOTATION,
    MANAGED_LABEL,
    MIRROR_ANNOTATION,
    NETWORK_LABEL,
)

COMMAND = block("docs/operations.md", "New and restored clusters", "get namespaces")
ON_IPVLAN = {DEFAULT_NETWORK_ANNOTATION: "kube-system/ipvlan"}
MANAGED = {MANAGED_LABEL: "true"}


def pod(annotations: dict[str, str] | None = None, labels: dict[str, str] | None = None, **spec: bool) -> Object:
    metadata = {"namespace": "shop", "name": "a", "annotations": annotations, "labels": labels}
    return {"metadata": {key: value for key, value in metadata.items() if value is not None}, "spec": spec}


def found(objects: list[Object], tmp_path: Path) -> list[str]:
    if shutil.which("jq") is None:
        pytest.skip("no jq here: `make setup` installs it")
    (tmp_path / "pods.json").write_text(json.dumps({"items": objects}))
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        f"""#!/bin/sh
echo "$*" >> {tmp_path}/asked
case "$*" in
"get namespaces -l {NETWORK_LABEL} -o name") printf 'namespace/shop\\nnamespace/bare\\n' ;;
"-n shop get pods "*) cat {tmp_path}/pods.json ;;
"-n bare get pods "*) echo '{{"items": []}}' ;;
*) exit 1 ;;
esac
"""
    )
    kubectl.chmod(0o755)
    script = f"PATH={tmp_path}:$PATH\n{COMMAND}"
    done = subprocess.run(["sh", "-uc", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len((tmp_path / "asked").read_text().splitlines()) == 3
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "missed",
    [
        pod(),
        pod({"example.com/a": "b"}),
        pod({INGRESS_ANNOTATION: "100M"}),
        pod({EGRESS_ANNOTATION: "100M"}, MANAGED),
        pod(ON_IPVLAN | {INGRESS_ANNOTATION: "100M"}),
        pod(ON_IPVLAN | {EGRESS_ANNOTATION: "100M"}, {"app": "web"}),
    ],
    ids=["bare", "other annotations", "limited", "annotated again", "ipvlan, limited", "ipvlan, limited, labels"],
)
def test_a_pod_that_nobody_reviewed_is_named(missed: Object, tmp_path: Path) -> None:
    assert found([pod(ON_IPVLAN), missed], tmp_path) == ["shop/a"]


def test_a_pod_that_was_reviewed_is_not_nor_one_on_the_hosts_network_nor_a_static_one(tmp_path: Path) -> None:
    reviewed = [pod(ON_IPVLAN), pod(ON_IPVLAN | {INGRESS_ANNOTATION: "100M"}, MANAGED)]
    assert found([*reviewed, pod(hostNetwork=True), pod({MIRROR_ANNOTATION: "a"})], tmp_path) == []
