"""The patches that the documentation gives, as kubectl renders them over either installation."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.cli import _parser
from tests.unit.manifests.overlays import block, patched
from tests.unit.manifests.test_manifests import CERT_MANAGER, INSTALLED, MANIFESTS, ROOT, Object, one, rendered
from webhook.settings import add_arguments, settings_of

OPERATIONS, REFERENCE, SECURITY = "docs/operations.md", "docs/reference.md", "docs/security.md"
AWAY = "Where the API server does not reach the webhook"

each_installation = pytest.mark.parametrize("folder", [MANIFESTS, CERT_MANAGER], ids=["manifests", "cert-manager"])


def container(workload: Object) -> Object:
    (only,) = workload["spec"]["template"]["spec"]["containers"]
    return dict(only)


def webhook_arguments(said: list[str]) -> Any:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    assert said[:4] == ["python3", "-m", "webhook", "serve"]
    return settings_of(parser.parse_args(said[4:]))


def listens(workload: Object) -> dict[str, int]:
    """By the name of each port, where the program listens by its flags."""
    only = container(workload)
    said = [*only["command"], *only.get("args", [])]
    if workload["kind"] == "DaemonSet":
        assert said[:4] == ["python3", "-m", "reconciler", "run"]
        args = _parser().parse_args(said[3:])
        return {"http": args.port, "probes": args.probe_port}
    settings = webhook_arguments(said)
    return {"https": settings.port, "http": settings.health_port}


@dataclass(frozen=True)
class Moved:
    """A block of the documentation, and the ports that it gives a program, by name."""

    page: str
    heading: str
    words: str
    listening: dict[str, int]

    @property
    def workload(self) -> tuple[str, str]:
        return ("DaemonSet", "reconciler") if "probes" in self.listening else ("Deployment", "webhook")


MOVED = {
    "gke": Moved(OPERATIONS, AWAY, "--port=10250", {"https": 10250, "http": 8080}),
    "eks": Moved(OPERATIONS, AWAY, "hostNetwork", {"https": 9743, "http": 9744}),
    "reconciler": Moved(REFERENCE, "Settings", "--probe-port", {"http": 9845, "probes": 9846}),
}


@each_installation
@pytest.mark.parametrize("moved", MOVED.values(), ids=MOVED)
def test_with_other_ports_all_find_the_program_where_it_listens(moved: Moved, folder: Path, tmp_path: Path) -> None:
    applied = patched(block(moved.page, moved.heading, moved.words), folder, tmp_path)
    kind, name = moved.workload
    listening = moved.listening
    workload = one(kind, name, applied)
    assert listens(workload) == listening
    before, after = container(one(kind, name)), container(workload)
    assert [port["name"] for port in after["ports"]] == [port["name"] for port in before["ports"]]
    assert {port["name"]: port["containerPort"] for port in after["ports"]} == listening
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert after[probe] == before[probe]
        assert after[probe]["httpGet"]["port"] in listening
    annotations = workload["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(listening["http"])
    if kind == "Deployment":
        assert one("Service", "webhook", applied)["spec"]["ports"][0]["targetPort"] == "https"
        ingress = one("NetworkPolicy", "webhook", applied)["spec"]["ingress"]
        assert {port["port"] for rule in ingress for port in rule["ports"]} == {"https", "http"}


@each_installation
def test_on_its_nodes_network_a_replica_makes_room_for_the_next_and_meets_no_port_of_ours(
    folder: Path, tmp_path: Path
) -> None:
    applied = patched(block(OPERATIONS, AWAY, "hostNetwork"), folder, tmp_path)
    webhook = one("Deployment", "webhook", applied)
    assert webhook["spec"]["template"]["spec"]["hostNetwork"] is True
    assert webhook["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert not {*listens(webhook).values()} & {*listens(one("DaemonSet", "reconciler", applied)).values()}


@each_installation
def test_other_settings_are_as_they_were_beside_a_flag(folder: Path, tmp_path: Path) -> None:
    """With cert-manager the webhook has a flag already, which must stay."""
    overlay = block(OPERATIONS, AWAY, "--port=10250")
    said = container(one("Deployment", "webhook", patched(overlay, folder, tmp_path)))
    certificates = webhook_arguments([*said["command"], *said.get("args", [])]).certificates
    assert certificates == (Path("/certificates") if folder == CERT_MANAGER else None)
    slots = patched(block(REFERENCE, "Settings", "--slots"), folder, tmp_path)
    assert _parser().parse_args(container(one("DaemonSet", "reconciler", slots))["command"][3:]).slots == 512


@each_installation
def test_where_a_single_node_takes_pods_its_drain_may_evict_the_webhook(folder: Path, tmp_path: Path) -> None:
    applied = patched(block(OPERATIONS, "Where a single node takes Pods", "/spec/replicas"), folder, tmp_path)
    budget = one("PodDisruptionBudget", "webhook", applied)["spec"]
    assert one("Deployment", "webhook", applied)["spec"]["replicas"] - budget["maxUnavailable"] == 0


def strategy(overlay: str, tmp_path: Path) -> Object:
    return dict(one("DaemonSet", "reconciler", patched(overlay, MANIFESTS, tmp_path))["spec"]["updateStrategy"])


def test_a_large_cluster_is_updated_node_by_node_or_when_it_is_told(tmp_path: Path) -> None:
    overlay = block(OPERATIONS, "Upgrade", "maxUnavailable")
    assert strategy(overlay, tmp_path) == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
    slow = one("DaemonSet", "reconciler", patched(overlay, MANIFESTS, tmp_path))
    assert slow["spec"]["minReadySeconds"] == 60
    (other,) = [
        word for word in (ROOT / OPERATIONS).read_text().split("`") if word[:4] == "{op:" and "OnDelete" in word
    ]
    loaded = yaml.safe_load(overlay)
    loaded["patches"][0]["patch"] = f"- {other}"
    assert strategy(yaml.safe_dump(loaded), tmp_path) == {"type": "OnDelete"}
    # What a node's reconciler is told apart by.
    deletes = block(OPERATIONS, "Upgrade", "delete pod")
    (selector,) = one("DaemonSet", "reconciler")["spec"]["selector"]["matchLabels"].items()
    assert f"-l {'='.join(selector)} " in deletes


def test_an_image_is_pulled_first_where_the_reconciler_will_run() -> None:
    pulled = yaml.safe_load(block(OPERATIONS, "Pulled first", "kind: DaemonSet"))
    spec, reconciler = pulled["spec"]["template"]["spec"], one("DaemonSet", "reconciler")
    assert pulled["metadata"]["namespace"] == reconciler["metadata"]["namespace"]
    assert pulled["spec"]["selector"]["matchLabels"] == pulled["spec"]["template"]["metadata"]["labels"]
    assert pulled["spec"]["selector"] != reconciler["spec"]["selector"]
    for part in ("tolerations", "nodeSelector"):
        assert spec[part] == reconciler["spec"]["template"]["spec"][part]


@pytest.mark.parametrize(
    ("folder", "name"),
    [(MANIFESTS, "reconciler"), (CERT_MANAGER, "reconciler"), (MANIFESTS / "clean", "clean")],
    ids=["manifests", "cert-manager", "clean"],
)
def test_where_selinux_enforces_what_needs_the_node_has_another_type_and_all_else_is_as_it_was(
    folder: Path, name: str, tmp_path: Path
) -> None:
    before, after = rendered(folder), patched(block(SECURITY, "SELinux", "seLinuxOptions"), folder, tmp_path)
    pod = one("DaemonSet", name, after)["spec"]["template"]["spec"]
    assert pod["securityContext"].pop("seLinuxOptions") == {"type": "spc_t"}
    for each in (*pod.get("initContainers", []), *pod["containers"]):
        assert "seLinuxOptions" not in each["securityContext"]  # its own would stand before the Pod's
    assert after == before


@each_installation
def test_images_of_one_architecture_run_where_they_can(folder: Path, tmp_path: Path) -> None:
    applied = patched(block(OPERATIONS, "Images", "kubernetes.io~1arch"), folder, tmp_path)
    for kind, name in (("Deployment", "webhook"), ("DaemonSet", "reconciler")):
        before = one(kind, name, INSTALLED)["spec"]["template"]["spec"]["nodeSelector"]
        after = one(kind, name, applied)["spec"]["template"]["spec"]["nodeSelector"]
        assert after == before | {"kubernetes.io/arch": "amd64"}
