"""The table of rights in docs/security.md says all that the manifests ask for, and no more than they do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
MANIFESTS = ROOT / "manifests"
FILES = [*(MANIFESTS / "base").glob("*.yaml"), MANIFESTS / "clean/clean.yaml"]
OBJECTS = [each for file in FILES for each in yaml.safe_load_all(file.read_text()) if each]
WHO = ("webhook", "reconciler", "clean")

Object = dict[str, Any]
Right = tuple[str, str]


def table() -> Iterator[tuple[str, Right, str]]:
    section = (ROOT / "docs/security.md").read_text().split("## What it may do, and why", 1)[1].split("\n##", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    assert rows[0] == ["who", "may", "what", "why"]
    for who, may, what, why in rows[2:]:
        yield who, (may, what), why


def workload(who: str) -> Object:
    (found,) = [
        o for o in OBJECTS if o["kind"] in {"Deployment", "DaemonSet"} and o["metadata"]["name"] == who
    ]  # fmt: skip
    return found


def containers(pod: Object) -> list[Object]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def api(account: str) -> Iterator[Right]:
    """The rules that are bound to a service account, in the table's words."""
    roles = {(o["kind"], o["metadata"]["name"]): o for o in OBJECTS if o["kind"] in {"Role", "ClusterRole"}}
    for binding in (o for o in OBJECTS if o["kind"] in {"RoleBinding", "ClusterRoleBinding"}):
        if account in {subject["name"] for subject in binding["subjects"]}:
            role = roles[binding["roleRef"]["kind"], binding["roleRef"]["name"]]
            where = ", in its own namespace" if binding["kind"] == "RoleBinding" else ""
            for rule in role["rules"]:
                assert rule.keys() <= {"apiGroups", "resources", "resourceNames", "verbs"}
                for resource in rule["resources"]:
                    what = " ".join([resource, *rule.get("resourceNames", [])])
                    yield "use the API", f"{', '.join(rule['verbs'])} {what}{where}"


def host(pod: Object) -> Iterator[Right]:
    """What of the host a Pod shares, reads and writes."""
    for name, words in (("hostNetwork", "network namespace"), ("hostPID", "processes"), ("hostIPC", "IPC")):
        if pod.get(name):
            yield "share", f"the host's {words}"
    mounts = [mount for container in containers(pod) for mount in container.get("volumeMounts", [])]
    for volume in (each for each in pod.get("volumes", []) if "hostPath" in each):
        uses = [mount for mount in mounts if mount["name"] == volume["name"]]
        kind = "read" if all(mount.get("readOnly") for mount in uses) else "write"
        yield kind, f"the host's {volume['hostPath']['path']}"


def network(who: str) -> Iterator[Right]:
    """Where a NetworkPolicy lets a workload connect to."""
    for policy in (o for o in OBJECTS if o["kind"] == "NetworkPolicy" and o["metadata"]["name"] == who):
        for rule in policy["spec"]["egress"]:
            yield "connect to", "TCP " + ", ".join(str(port["port"]) for port in rule["ports"])


def asked(who: str) -> set[Right]:
    pod = workload(who)["spec"]["template"]["spec"]
    context = pod["securityContext"]
    user = context["runAsUser"]
    rights = {("run as", "root" if user == 0 else f"user {user}"), *host(pod), *network(who)}
    account = pod.get("serviceAccountName")
    if account is not None:
        rights |= set(api(account))
    for container in containers(pod):
        rights |= {("have", f"CAP_{name}") for name in container["securityContext"]["capabilities"].get("add", [])}
        for port in container.get("ports", []):
            address = f" of {port['hostIP']}" if "hostIP" in port else ""
            rights.add(("listen on", f"TCP {port['containerPort']}{address}"))
    return rights


@pytest.mark.parametrize("who", WHO)
def test_the_table_has_every_right_that_the_manifests_ask_for_and_no_other(who: str) -> None:
    assert {right for owner, right, _ in table() if owner == who} == asked(who)


def test_every_right_has_its_reason_and_a_known_owner() -> None:
    for who, right, why in table():
        assert who in WHO
        assert why or right == ("run as", "user 65532"), right


@pytest.mark.parametrize("who", WHO)
def test_only_who_uses_the_api_has_a_token(who: str) -> None:
    pod = workload(who)["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is any(may == "use the API" for may, _ in asked(who))


def test_no_service_account_hands_its_token_out_unasked() -> None:
    accounts = [o for o in OBJECTS if o["kind"] == "ServiceAccount"]
    assert {o["metadata"]["name"] for o in accounts} == {"webhook", "reconciler"}
    assert not any(o["automountServiceAccountToken"] for o in accounts)


def test_the_network_policy_covers_the_webhook_and_lets_in_what_its_ports_are_for() -> None:
    (policy,) = [o["spec"] for o in OBJECTS if o["kind"] == "NetworkPolicy"]
    template = workload("webhook")["spec"]["template"]
    assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    (container,) = template["spec"]["containers"]
    (rule,) = policy["ingress"]
    assert {port["port"] for port in rule["ports"]} == {port["name"] for port in container["ports"]}
    assert {port["protocol"] for port in rule["ports"]} == {"TCP"}


def test_nothing_is_unconfined_by_the_manifests() -> None:
    """No profile is named for AppArmor or SELinux, so that the runtime's defaults hold where a node has them."""
    text = "".join(file.read_text() for file in FILES)
    for word in ("appArmorProfile", "container.apparmor.security.beta", "Unconfined", "unconfined", "seLinuxOptions"):
        assert word not in text


@pytest.mark.parametrize("who", WHO)
def test_what_the_cluster_cannot_do_without_is_not_evicted_first(who: str) -> None:
    pod = workload(who)["spec"]["template"]["spec"]
    expected = "system-cluster-critical" if who == "webhook" else "system-node-critical"
    assert pod["priorityClassName"] == expected
