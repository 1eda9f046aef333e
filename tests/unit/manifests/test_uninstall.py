"""The uninstall in docs/operations.md: it finds Pods that would not start again, and cleans nodes."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from reconciler.paths import NRI_SOCKET
from tests.unit.manifests.overlays import block, blocks
from tests.unit.manifests.test_manifests import CLEAN, INSTALLED, Object, one

PAGE, HEADING = "docs/operations.md", "Uninstall"
KEY, VALUE = "required-plugins.noderesource.dev", '["ipvlan-bandwidth"]'
QUERY = block(PAGE, HEADING, "get pods,")
OTHER = '["another"]'
IN_LINES = "- another\n- ipvlan-bandwidth\n"
"""The runtime reads YAML."""

Annotations = dict[str, str]


def pod(annotations: Annotations) -> Object:
    return {"kind": "Pod", "metadata": {"namespace": "shop", "name": "a", "annotations": annotations}, "spec": {}}


def workload(kind: str, annotations: Annotations) -> Object:
    template = {"metadata": {"annotations": annotations}, "spec": {"volumes": [{"annotations": "no object"}, None]}}
    spec: dict[str, Any] = {"template": template}
    if kind == "CronJob":
        spec = {"jobTemplate": {"spec": spec}}
    applied = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({KEY: VALUE})}
    return {"kind": kind, "metadata": {"namespace": "shop", "name": "a", "annotations": applied}, "spec": spec}


def found(objects: list[Object], tmp_path: Path) -> str:
    if shutil.which("jq") is None:
        pytest.skip("no jq here: `make setup` installs it")
    (tmp_path / "objects.json").write_text(json.dumps({"items": objects}))
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f"#!/bin/sh\ncat {tmp_path}/objects.json\n")
    kubectl.chmod(0o755)
    script = f"PATH={tmp_path}:$PATH\n{QUERY}"
    done = subprocess.run(["sh", "-uc", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("form", ["", "/pod", "/container.web"])
@pytest.mark.parametrize("value", [VALUE, IN_LINES], ids=["json", "yaml"])
@pytest.mark.parametrize("kind", ["Pod", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"])
def test_it_finds_every_form_of_the_annotation_wherever_it_stands(
    kind: str, value: str, form: str, tmp_path: Path
) -> None:
    annotations = {KEY + form: value}
    asks = pod(annotations) if kind == "Pod" else workload(kind, annotations)
    assert found([pod({}), asks], tmp_path) == f"{kind} shop/a\n"


def test_it_finds_nothing_where_no_pod_asks_for_the_reconciler(tmp_path: Path) -> None:
    bare = pod({})
    del bare["metadata"]["annotations"]
    others = [bare, pod({KEY: OTHER}), pod({"example.com/needs": VALUE}), workload("Deployment", {})]
    assert found(others, tmp_path) == ""


def test_it_asks_for_all_that_makes_pods_and_for_pods_in_all_namespaces() -> None:
    words = shlex.split(QUERY.split("|")[0])
    assert words[1:4] == ["get", "pods,deploy,sts,ds,jobs,cronjobs", "-A"]


def test_the_record_of_programs_is_deleted_where_the_reconciler_keeps_it() -> None:
    folder = str(Path(NRI_SOCKET).parent)
    for name, manifests, kind in (("reconciler", INSTALLED, "containers"), ("clean", CLEAN, "initContainers")):
        pod = one("DaemonSet", name, manifests)["spec"]["template"]["spec"]
        ((mount,),) = ([each for each in held["volumeMounts"] if each["mountPath"] == folder] for held in pod[kind])
        (volume,) = [each for each in pod["volumes"] if each["name"] == mount["name"]]
        assert volume["hostPath"]["path"] == folder
        assert not mount.get("readOnly")
    (waiting,) = one("DaemonSet", "clean", CLEAN)["spec"]["template"]["spec"]["containers"]
    assert "volumeMounts" not in waiting


def test_the_nodes_are_cleaned_by_what_is_there_in_its_own_namespace() -> None:
    daemon_set = one("DaemonSet", "clean", CLEAN)
    commands = [shlex.split(line) for line in block(PAGE, HEADING, "rollout").splitlines()]
    assert commands[0] == ["kubectl", "apply", "-k", "deploy-clean"]
    assert commands[1][2] == commands[2][2] == daemon_set["metadata"]["namespace"]
    assert f"daemonset/{daemon_set['metadata']['name']}" in commands[1]


@pytest.mark.parametrize(("overlay", "installed"), [("deploy", INSTALLED), ("deploy-clean", CLEAN)])
def test_a_node_that_is_down_does_not_keep_the_deletion_from_returning(overlay: str, installed: list[Object]) -> None:
    """Its Pods are there until it is back, and `kubectl delete` waits for them for ever."""
    lines = "\n".join(blocks(PAGE, HEADING)).splitlines()
    (at,) = [n for n, line in enumerate(lines) if re.search(rf"delete -k {overlay}\b(?!-)", line)]
    assert shlex.split(lines[at]) == ["kubectl", "delete", "-k", overlay, "--wait=false"]
    (namespace,) = {each["metadata"]["name"] for each in installed if each["kind"] == "Namespace"}
    wait = shlex.split(lines[at + 1])
    assert wait == ["kubectl", "-n", namespace, "wait", "--for=delete", "pod", "--all", "--timeout=3m"]
