"""What `kubectl apply -k manifests` would install: its names, and that it all fits together (rights: test_rbac)."""

import argparse
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler import events, http
from reconciler.cli import _parser
from reconciler.nri import transport
from webhook.admission import Pod, review
from webhook.common import contract
from webhook.common.http_server import Bounds
from webhook.common.version import VERSION
from webhook.policy import Policy
from webhook.request_bodies import ALL_BODIES_BYTES
from webhook.server import HEALTH_BOUNDS
from webhook.settings import CONFIGURATION, DEPLOYMENT, SECRET, SERVICE, add_arguments, settings_of

ROOT = Path(__file__).parents[3]
MANIFESTS = ROOT / "manifests"
BASE, CERT_MANAGER = MANIFESTS / "base", MANIFESTS / "cert-manager"
KUSTOMIZATIONS = (BASE, *(MANIFESTS / name for name in ("clean", "cert-manager", "monitoring", "admission-policies")))
IMAGES = {"ipvlan-bandwidth.invalid/webhook", "ipvlan-bandwidth.invalid/reconciler"}
CACHE = Path(os.environ.get("IPVLAN_BANDWIDTH_CACHE") or Path.home() / ".cache/ipvlan-bandwidth")

Object = dict[str, Any]


def objects(*files: Path) -> list[Object]:
    return [document for file in files for document in yaml.safe_load_all(file.read_text()) if document]


def resources(kustomization: Path) -> list[Path]:
    (document,) = objects(kustomization / "kustomization.yaml")
    return [kustomization / name for name in document["resources"] if name.endswith(".yaml")]


INSTALLED = objects(*resources(BASE))
CLEAN = objects(*resources(MANIFESTS / "clean"))


def one(kind: str, name: str, among: list[Object] | None = None) -> Object:
    (found,) = [o for o in among or INSTALLED if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


@dataclass(frozen=True)
class Container:
    owner: str
    spec: Object

    @property
    def name(self) -> str:
        return f"{self.owner}/{self.spec['name']}"


def pod_specs() -> Iterator[tuple[str, Object]]:
    for manifest in INSTALLED + CLEAN:
        if manifest["kind"] in {"DaemonSet", "Deployment"}:
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]


CONTAINERS = [
    Container(owner, spec)
    for owner, pod in pod_specs()
    for spec in [*pod.get("initContainers", []), *pod["containers"]]
]
each_container = pytest.mark.parametrize("container", CONTAINERS, ids=lambda c: c.name)
each_pod = pytest.mark.parametrize("pod", [pod for _, pod in pod_specs()], ids=[owner for owner, _ in pod_specs()])


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda folder: folder.name)
def test_a_kustomization_lists_every_manifest_of_its_folder_and_nothing_else(folder: Path) -> None:
    there = {file for file in folder.glob("*.yaml") if file.name != "kustomization.yaml"}
    assert set(resources(folder)) == there


@pytest.mark.parametrize("file", sorted(MANIFESTS.rglob("*.yaml")), ids=lambda file: str(file.relative_to(MANIFESTS)))
def test_every_document_is_a_named_object(file: Path) -> None:
    for manifest in objects(file):
        assert manifest["apiVersion"]
        assert manifest["kind"] == "Kustomization" or manifest["metadata"]["name"]


def test_what_is_applied_is_the_base() -> None:
    (document,) = objects(MANIFESTS / "kustomization.yaml")
    assert document["resources"] == ["base"]


def test_everything_namespaced_is_in_the_projects_own_namespace() -> None:
    cluster_wide = {"Namespace", "ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration"}
    for manifest in INSTALLED:
        expected = None if manifest["kind"] in cluster_wide else "ipvlan-bandwidth"
        assert manifest["metadata"].get("namespace") == expected


@each_container
def test_no_container_is_privileged_or_can_become_so(container: Container) -> None:
    context = container.spec["securityContext"]
    assert context["privileged"] is False
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"]["drop"] == ["ALL"]


def test_what_waits_once_a_node_is_clean_has_no_capability() -> None:
    (waiting,) = [each for each in CONTAINERS if each.name == "clean/done"]
    assert "add" not in waiting.spec["securityContext"]["capabilities"]


@each_pod
def test_every_pod_has_the_runtimes_seccomp_profile(pod: Object) -> None:
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_netns_mounts_of_later_pods_reach_the_reconciler() -> None:
    mounts = [m for c in CONTAINERS for m in c.spec.get("volumeMounts", []) if m["name"] == "netns"]
    assert len(mounts) == 2
    assert {mount["mountPropagation"] for mount in mounts} == {"HostToContainer"}


def test_the_webhook_is_not_killed_while_it_drains() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    settings = settings_of(parser.parse_args([]))
    longest_s = settings.drain_s + settings.linger_s + Bounds().finish_s
    assert one("Deployment", "webhook")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > longest_s


def test_the_reconciler_is_not_killed_while_it_finishes_starts_of_pods_and_posts_their_events() -> None:
    grace_s = one("DaemonSet", "reconciler")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s > 2 * (transport.FINISH_S + events.FINISH_S), "half of it is for a slow node"


def test_the_webhook_has_memory_for_heads_bodies_and_unread_answers_at_all_their_bounds() -> None:
    (container,) = one("Deployment", "webhook")["spec"]["template"]["spec"]["containers"]
    limit = container["resources"]["limits"]["memory"]
    itself, being_read = 55e6, 46e6
    # Of a connection, as measured: with two of the largest heads, one of them answered and one waiting, while nothing
    # of the answers is read. With a body that is coming there is but one head.
    most = 0.83e6
    connections = Bounds().connections + HEALTH_BOUNDS.connections
    assert int(limit.removesuffix("Mi")) * 2**20 > itself + connections * most + ALL_BODIES_BYTES + being_read


def test_the_reconciler_has_memory_for_heads_at_both_ports_bounds_beside_its_compiler() -> None:
    (container,) = one("DaemonSet", "reconciler")["spec"]["template"]["spec"]["containers"]
    limit = container["resources"]["limits"]["memory"]
    # The maps of two programs, as in an upgrade; the compiler's files are in memory too.
    itself, maps, compiler, its_files, head, idle = 58e6, 2 * 17e6, 127e6, 67e6, 0.3e6, 0.045e6
    connections = http.METRICS_BOUNDS.connections + http.PROBE_BOUNDS.connections
    strangers = connections * (head + idle)
    assert int(limit.removesuffix("Mi")) * 2**20 > itself + maps + compiler + its_files + strangers


def test_the_webhooks_replicas_are_spread_over_nodes_and_zones_and_stay_so() -> None:
    deployment = one("Deployment", "webhook")["spec"]
    pod = deployment["template"]["spec"]
    (node,) = pod["topologySpreadConstraints"]
    (preferred,) = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    zone = preferred["podAffinityTerm"]
    assert (node["topologyKey"], zone["topologyKey"]) == ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    assert (node["maxSkew"], node["whenUnsatisfiable"]) == (1, "ScheduleAnyway")
    for constraint in (node, zone):
        assert constraint["labelSelector"] == deployment["selector"]
    assert "tolerations" not in pod, "half a minute had both replicas on one node of two when a runtime restarted"


def test_the_webhook_meets_restricted_pod_security() -> None:
    pod = one("Deployment", "webhook")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert not pod.get("hostNetwork")


@each_container
def test_every_container_asks_for_resources_and_has_a_limit_of_memory(container: Container) -> None:
    assert set(container.spec["resources"]["requests"]) == {"cpu", "memory"}
    # A limit of CPU would throttle admission and the runtime's hooks.
    assert set(container.spec["resources"]["limits"]) == {"memory"}


@each_container
def test_images_have_the_projects_version_and_names_that_nobody_can_answer_to(container: Container) -> None:
    """Whoever did would run as root on the nodes of all who apply the manifests as they are.

    `localhost` would not do: a node asks what listens on its own ports, and there the runtime checks no certificate.
    """
    repository, tag = container.spec["image"].rsplit(":", 1)
    assert tag == VERSION
    assert repository in IMAGES
    assert repository.split("/")[0].endswith(".invalid")  # RFC 6761, section 6.4: never resolves


def test_bindings_bind_roles_that_exist_to_service_accounts_that_pods_use() -> None:
    used = {pod["serviceAccountName"] for owner, pod in pod_specs() if owner != "clean"}
    bindings = [o for o in INSTALLED if o["kind"].endswith("Binding")]
    assert len(bindings) == 3
    for binding in bindings:
        one(binding["roleRef"]["kind"], binding["roleRef"]["name"])
        (subject,) = binding["subjects"]
        one("ServiceAccount", subject["name"])
        assert subject["name"] in used
        assert subject["namespace"] == "ipvlan-bandwidth"


def configuration() -> Object:
    (webhook,) = one("MutatingWebhookConfiguration", "ipvlan-bandwidth")["webhooks"]
    return dict(webhook)


def test_the_webhooks_own_objects_are_called_as_it_calls_them() -> None:
    one("Namespace", contract.NAMESPACE)
    one("Service", SERVICE)
    one("Deployment", DEPLOYMENT)
    one("MutatingWebhookConfiguration", CONFIGURATION)
    service = configuration()["clientConfig"]["service"]
    assert (service["name"], service["namespace"]) == (SERVICE, contract.NAMESPACE)
    named = {
        name
        for rule in one("Role", "webhook")["rules"]
        if "secrets" in rule["resources"]
        for name in rule.get("resourceNames", ())
    }
    assert named == {SECRET}


def test_applying_again_leaves_the_ca_bundle_as_the_webhook_wrote_it() -> None:
    for manifest in INSTALLED:
        assert "caBundle" not in json.dumps(manifest)


def test_the_api_server_finds_the_webhook_through_its_service() -> None:
    wanted = configuration()["clientConfig"]["service"]
    service = one("Service", wanted["name"])
    assert service["metadata"]["namespace"] == wanted["namespace"]
    (port,) = service["spec"]["ports"]
    assert port["port"] == wanted["port"]
    template = one("Deployment", "webhook")["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    (container,) = template["spec"]["containers"]
    assert {"name": port["targetPort"], "containerPort": 8443} in container["ports"]


@pytest.mark.parametrize(("kind", "name"), [("Deployment", "webhook"), ("DaemonSet", "reconciler")])
def test_selectors_and_probes_name_what_the_pods_have(kind: str, name: str) -> None:
    spec = one(kind, name)["spec"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    (container,) = spec["template"]["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe"])
@pytest.mark.parametrize(("kind", "name"), [("Deployment", "webhook"), ("DaemonSet", "reconciler")])
def test_kubelet_has_patience_with_what_is_slow_on_a_busy_node(kind: str, name: str, probe: str) -> None:
    (container,) = one(kind, name)["spec"]["template"]["spec"]["containers"]
    asked = container[probe]
    assert asked["failureThreshold"] * asked["periodSeconds"] >= 300
    assert asked["timeoutSeconds"] >= 5


def test_kubelet_asks_the_reconciler_on_loopback_where_no_stranger_comes() -> None:
    (container,) = one("DaemonSet", "reconciler")["spec"]["template"]["spec"]["containers"]
    args = _parser().parse_args(["run"])
    assert container["ports"] == [
        {"name": "http", "containerPort": args.port},
        {
            "name": "probes",
            "containerPort": args.probe_port,
            "hostPort": args.probe_port,
            "hostIP": http.LOOPBACK,
        },
    ]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert (asked["host"], asked["port"]) == (http.LOOPBACK, "probes")


def test_as_the_webhook_may_ask_no_dns_gardener_is_told_to_leave_it_the_api_servers_address() -> None:
    egress = one("NetworkPolicy", "webhook")["spec"]["egress"]
    assert 53 not in {port["port"] for rule in egress for port in rule["ports"]}
    labels = one("Namespace", "ipvlan-bandwidth")["metadata"]["labels"]
    assert labels["apiserver-proxy.networking.gardener.cloud/inject"] == "disable"


def test_a_namespace_that_did_not_opt_in_never_depends_on_the_webhook_and_ours_cannot() -> None:
    exists, excluded = configuration()["namespaceSelector"]["matchExpressions"]
    assert exists == {"key": contract.NETWORK_LABEL, "operator": "Exists"}
    assert excluded["operator"] == "NotIn"
    assert set(excluded["values"]) == contract.NEVER_OPTED_IN == {"kube-system", "ipvlan-bandwidth"}


def test_an_update_is_asked_about_only_when_it_touches_what_the_contract_names() -> None:
    condition, _ = configuration()["matchConditions"]
    limits = (contract.INGRESS_ANNOTATION, contract.EGRESS_ANNOTATION)
    for name in (*limits, contract.MANAGED_LABEL, contract.DEFAULT_NETWORK_ANNOTATION):
        assert condition["expression"].count(f"[?'{name}']") == 2
    assert "!has(object.metadata.deletionTimestamp)" in condition["expression"]


@pytest.mark.parametrize("left", ["", " ", "\n\t", "[]", " [ ]\n", "[ ", "[]]", "default/other", '[{"name": "other"}]'])
def test_an_update_is_asked_about_when_the_default_network_that_it_leaves_is_none_for_admission(left: str) -> None:
    condition, _ = configuration()["matchConditions"]
    network = f".metadata.?annotations[?'{contract.DEFAULT_NETWORK_ANNOTATION}'].orValue('') .matches(r'"
    (before, blank), (negated, also_blank) = re.findall(
        rf"(\S*){re.escape(network)}([^']*)'\)", condition["expression"]
    )
    assert (before, negated, blank) == ("(object", "!oldObject", also_blank)
    old, new = (Pod({contract.DEFAULT_NETWORK_ANNOTATION: value}) for value in ("default/mine", left))
    assert bool(re.search(blank, left)) == bool(review(new, old, Policy()).patch)


def test_the_api_server_asks_about_no_mirror_pod_which_admission_lets_pass_whatever_it_says() -> None:
    _, condition = configuration()["matchConditions"]
    assert condition["expression"] == f"!object.metadata.?annotations[?'{contract.MIRROR_ANNOTATION}'].hasValue()"


def test_a_refusal_stops_the_pod_and_a_second_pass_is_harmless() -> None:
    webhook = configuration()
    assert webhook["name"] == "pods.ipvlan-bandwidth.io"
    assert webhook["failurePolicy"] == "Fail"
    assert webhook["sideEffects"] == "None"
    assert webhook["reinvocationPolicy"] == "IfNeeded"
    assert webhook["timeoutSeconds"] <= 10
    (rule,) = webhook["rules"]
    assert (rule["operations"], rule["resources"]) == (["CREATE", "UPDATE"], ["pods"])


def test_the_example_opts_in_to_the_network_that_both_variants_define() -> None:
    examples = MANIFESTS / "examples"
    test = objects(examples / "test.yaml")
    label = one("Namespace", "example", test)["metadata"]["labels"][contract.NETWORK_LABEL]
    for variant in ("network-spiderpool.yaml", "network-host-local.yaml"):
        network = one("NetworkAttachmentDefinition", "ipvlan", objects(examples / variant))["metadata"]
        assert label == f"{network['namespace']}.{network['name']}"
    annotations = one("Deployment", "test", test)["spec"]["template"]["metadata"]["annotations"]
    assert contract.DEFAULT_NETWORK_ANNOTATION not in annotations, "the webhook injects it"
    limits = [contract.Quantity.parse(annotations[direction.annotation]) for direction in contract.Direction]
    assert [str(limit) for limit in limits] == ["100M", "100M"]


def test_the_spiderpool_example_chains_ipvlan_and_coordinator_with_a_pool_that_exists() -> None:
    manifests = objects(MANIFESTS / "examples/network-spiderpool.yaml")
    config = json.loads(one("NetworkAttachmentDefinition", "ipvlan", manifests)["spec"]["config"])
    assert [plugin["type"] for plugin in config["plugins"]] == ["ipvlan", "coordinator"]
    (pool,) = config["plugins"][0]["ipam"]["default_ipv4_ippool"]
    one("SpiderIPPool", pool, manifests)


def kubectl() -> str:
    folders = [os.environ.get("KUBEBUILDER_ASSETS", ""), str(CACHE / "bin"), os.environ.get("PATH", "")]
    found = shutil.which("kubectl", path=os.pathsep.join(filter(None, folders)))
    return found or pytest.skip("no kubectl here: `make cluster` builds one")


def rendered(folder: Path) -> list[Object]:
    done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.mark.parametrize("folder", [MANIFESTS, CERT_MANAGER, MANIFESTS / "clean"], ids=lambda folder: folder.name)
def test_an_overlay_names_registry_and_tag_of_every_image(folder: Path, tmp_path: Path) -> None:
    names = [f"{{name: {name}, newName: example/{name.rsplit('/', 1)[1]}, newTag: abc}}" for name in sorted(IMAGES)]
    resource = os.path.relpath(folder, tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(f"resources: [{resource}]\nimages: [{', '.join(names)}]\n")
    pods = [o["spec"]["template"]["spec"] for o in rendered(tmp_path) if o["kind"] in {"DaemonSet", "Deployment"}]
    images = {each["image"] for pod in pods for each in [*pod.get("initContainers", []), *pod["containers"]]}
    assert images <= {"example/webhook:abc", "example/reconciler:abc"}
    assert images


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md", "manifests/kustomization.yaml"])
def test_a_tag_that_is_all_digits_is_still_a_text(page: str) -> None:
    """`git describe` says a commit's short hash, in which some commits have no letter, or an "e" alone."""
    images = re.findall(r"^[# ]*- (\{name: .*newTag: .*?\})", (ROOT / page).read_text(), re.MULTILINE)
    assert images
    for image in images:
        assert yaml.safe_load(image.replace("TAG", "1234567"))["newTag"] == "1234567"


@pytest.mark.parametrize("folder", [MANIFESTS, MANIFESTS / "clean"], ids=lambda folder: folder.name)
def test_kubectl_renders_it_without_a_warning(folder: Path) -> None:
    manifests = rendered(folder)
    sources = INSTALLED if folder == MANIFESTS else CLEAN
    assert {(o["kind"], o["metadata"]["name"]) for o in manifests} == {
        (o["kind"], o["metadata"]["name"]) for o in sources
    }
    assert all(o["metadata"]["labels"]["app.kubernetes.io/part-of"] == "ipvlan-bandwidth" for o in manifests)
