"""The embedded cluster is what its users take it for: before the product's tests, so that these can be believed."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import launch, scenario
from tests.cluster.cluster import Cluster, ClusterError, wait_for
from tests.cluster.layout import PROJECT, cache
from tests.cluster.scenario import DEFAULT_NETWORK, STATUS

SPACE = "networks"
LINKS = {"management", "data", "m1", "m2", "d1", "d2"}
KUBERNETES_OWN = {"default", "kube-node-lease", "kube-public", "kube-system"}


@pytest.fixture(scope="module")
def pods(cluster):
    """A Pod of each network on each node, by network and node."""
    scenario.namespace(cluster, SPACE, network=None)
    made = {}
    for network, annotations in (("primary", {}), ("ipvlan", {DEFAULT_NETWORK: "kube-system/ipvlan"})):
        for node in (1, 2):
            name = f"{network}{node}"
            cluster.apply(json.dumps(scenario.pod(name, namespace=SPACE, node=node, annotations=annotations)))
            made[network, node] = f"{SPACE}/{name}"
    cluster.wait_ready(*made.values())
    yield made
    cluster.kubectl("delete", "namespace", SPACE, "--wait=false")


def status_of(cluster, pod):
    (status,) = json.loads(cluster.pod(pod)["metadata"]["annotations"][STATUS])
    return status


def link_kind(cluster, pod):
    (link,) = json.loads(cluster.enter(pod, "ip", "-json", "-details", "link", "show", "eth0").stdout)
    return link["linkinfo"]["info_kind"]


def test_nothing_was_done_to_it_before(cluster):
    items = cluster.kubectl_json("get", "namespaces")["items"]
    assert {item["metadata"]["name"] for item in items} <= KUBERNETES_OWN


def test_both_nodes_are_ready(cluster):
    nodes = cluster.kubectl_json("get", "nodes")["items"]
    ready = {
        node["metadata"]["name"]: condition["status"]
        for node in nodes
        for condition in node["status"]["conditions"]
        if condition["type"] == "Ready"
    }
    assert ready == {"node1": "True", "node2": "True"}


@pytest.mark.parametrize("node", [1, 2])
def test_an_ordinary_pod_is_on_the_primary_network(cluster, pods, node):
    pod = pods["primary", node]
    status = status_of(cluster, pod)
    assert link_kind(cluster, pod) == "veth"
    assert (status["name"], status["interface"], status["default"]) == ("cluster", "eth0", True)
    assert status["ips"] == [cluster.pod(pod)["status"]["podIP"]]
    assert status["ips"][0].startswith(f"10.244.{node}.")


@pytest.mark.parametrize("node", [1, 2])
def test_a_pod_that_names_the_ipvlan_network_is_on_that_alone(cluster, pods, node):
    pod = pods["ipvlan", node]
    status = status_of(cluster, pod)
    assert link_kind(cluster, pod) == "ipvlan"
    assert (status["name"], status["interface"], status["default"]) == ("kube-system/ipvlan", "eth0", True)
    assert status["ips"] == [cluster.pod(pod)["status"]["podIP"]]
    assert status["ips"][0].startswith("172.51.")
    links = json.loads(cluster.enter(pod, "ip", "-json", "link").stdout)
    assert {link["ifname"] for link in links} == {"lo", "eth0"}


@pytest.mark.parametrize("network", ["primary", "ipvlan"])
def test_pods_of_a_network_reach_each_other_across_the_nodes(cluster, pods, network):
    address = cluster.pod(pods[network, 2])["status"]["podIP"]
    assert " 0% packet loss" in cluster.enter(pods[network, 1], "ping", "-q", "-c", "3", "-i", "0.2", address).stdout


@pytest.mark.parametrize("network", ["primary", "ipvlan"])
def test_a_pod_reaches_the_api_server_at_the_kubernetes_services_address(cluster, pods, network):
    service = cluster.kubectl_json("get", "service", "kubernetes")["spec"]
    address, port = service["clusterIP"], service["ports"][0]["port"]
    fetch = (
        "import ssl, urllib.request; c = ssl._create_unverified_context(); "
        f"print(urllib.request.urlopen('https://{address}:{port}/readyz', context=c, timeout=10).read().decode())"
    )
    assert cluster.enter(pods[network, 1], "python3", "-c", fetch).stdout == "ok\n"


def test_the_delegates_deletion_needs_neither_the_pod_nor_its_definition(cluster):
    definition = {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": "short-lived", "namespace": "kube-system"},
        "spec": {
            "config": json.dumps(
                {
                    "cniVersion": "1.0.0",
                    "type": "ipvlan",
                    "master": "ens192",
                    "ipam": {"type": "host-local", "subnet": "172.51.99.0/24"},
                }
            )
        },
    }
    cluster.apply(json.dumps(definition))
    annotations = {DEFAULT_NETWORK: "kube-system/short-lived"}
    cluster.apply(json.dumps(scenario.pod("orphan", namespace="default", node=1, annotations=annotations)))
    cluster.wait_ready("default/orphan")
    reserved = f"/var/lib/cni/networks/short-lived/{cluster.pod('default/orphan')['status']['podIP']}"
    assert cluster.node(1).run("test", "-e", reserved, check=False).returncode == 0
    cluster.kubectl("delete", "-n", "kube-system", "network-attachment-definition", "short-lived")
    cluster.kubectl("delete", "pod", "orphan", "--force", "--grace-period=0")

    def released():
        return cluster.node(1).run("test", "-e", reserved, check=False).returncode != 0

    wait_for("the address handed back", released, 30)


def test_a_network_that_does_not_exist_is_said_in_the_pods_events(cluster):
    annotations = {DEFAULT_NETWORK: "kube-system/nowhere"}
    cluster.apply(json.dumps(scenario.pod("lost", namespace="default", node=1, annotations=annotations)))
    message = scenario.wait_for_event(cluster, "default/lost", "FailedCreatePodSandBox")
    cluster.kubectl("delete", "pod", "lost", "--force", "--grace-period=0")
    assert 'network-attachment-definitions.k8s.cni.cncf.io "nowhere" not found' in message


def test_a_command_on_a_node_has_its_own_output_input_and_exit_status(cluster):
    done = cluster.node(2).run("sh", "-c", "hostname; cat; echo trouble >&2; exit 7", stdin="given\n", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("node2\ngiven\n", "trouble\n", 7)


def test_a_command_that_is_killed_here_is_killed_on_the_node(cluster):
    process = cluster.node(1).popen("sleep", "54321")
    with process:
        wait_for("sleep", lambda: cluster.node(1).run("pgrep", "-f", "^sleep 54321", check=False).stdout, 10)
        process.kill()
    wait_for("its end", lambda: not cluster.node(1).run("pgrep", "-f", "^sleep 54321", check=False).stdout, 10)


def test_nothing_that_a_node_writes_reaches_the_machine(cluster):
    cluster.node(1).run("touch", "/etc/written-by-a-node")
    assert not Path("/etc/written-by-a-node").exists()
    assert cluster.node(2).run("test", "-e", "/etc/written-by-a-node", check=False).returncode != 0


def test_a_second_start_under_the_same_name_is_refused_and_harms_nothing(cluster):
    with pytest.raises(ClusterError, match="is up already"):
        Cluster(cluster.name).up()
    assert cluster.kubectl("get", "--raw", "/readyz").stdout == "ok"


def test_a_part_is_killed_and_started_again_and_what_cannot_be_done_is_said(cluster):
    cluster.disturb("kill", "kube-scheduler")
    with pytest.raises(ClusterError, match="kube-scheduler does not run"):
        cluster.disturb("freeze", "kube-scheduler")
    cluster.disturb("start", "kube-scheduler")
    for do in ("freeze", "thaw"):
        cluster.disturb(do, "kube-scheduler")
    with pytest.raises(ClusterError, match="nobody"):
        cluster.disturb("kill", "nobody")
    assert cluster.is_up()


def remains_of(name):
    """Processes, mounts and files of a cluster of that name; links are in its network namespace, which they keep."""
    folder = str(cache() / "cluster" / name)
    found = [line for line in Path("/proc/self/mounts").read_text().splitlines() if folder in line]
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                found += [word.decode() for word in words if folder.encode() in word]
    return found + [path.name for path in Path(folder).iterdir() if path.name not in {"logs", "lock"}]


def links():
    """Those of the machine's links that have a name of a cluster's; what else the machine has may come and go."""
    shown = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0].partition("@")[0] for line in shown.splitlines()} & LINKS


def test_a_cluster_whose_starter_is_killed_is_gone_and_starts_again_and_leaves_nothing_when_taken_down():
    name, before = f"test-{os.getpid()}-again", links()
    program = f"from tests.cluster.cluster import Cluster; Cluster({name!r}).up(); print('up', flush=True); input()"
    again = Cluster(name)
    command = [sys.executable, "-c", program]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=PROJECT) as starter:
        assert starter.stdout.readline() == "up\n"
        assert len(again.kubectl_json("get", "nodes")["items"]) == 2
        starter.send_signal(signal.SIGKILL)
    wait_for("its end after its starter's", lambda: not again.is_up(), 10, every=0.1)

    here = [sys.executable, "-m", "tests.cluster", "--name", name]
    guide = subprocess.run([*here, "up"], capture_output=True, text=True, check=True, cwd=PROJECT).stdout
    try:
        assert f"export KUBECONFIG={again.paths.kubeconfig}" in guide
        assert links() == before, "taps and bridges are in a network namespace of the cluster's own"
        done = subprocess.run([*here, "node", "2", "--", "hostname"], capture_output=True, check=True, cwd=PROJECT)
        assert done.stdout == b"node2\n"
    finally:
        subprocess.run([*here, "down"], check=True, cwd=PROJECT)
    assert remains_of(name) == []


def test_multus_and_extra_plugins_of_the_machine_take_the_stand_ins_place(tmp_path):
    """The stand-in plays the real Multus here, which it can as it reads the same configuration."""
    multus, extra = tmp_path / "any-name", tmp_path / "plugins"
    extra.mkdir()
    shutil.copy(launch.program("multus-standin"), multus)
    shutil.copy(launch.program("ptp"), extra / "coordinator")
    environment = {**os.environ, "MULTUS": str(multus), "EXTRA_CNI_BIN": str(extra)}
    name = f"test-{os.getpid()}-multus"
    here = [sys.executable, "-m", "tests.cluster", "--name", name]
    subprocess.run([*here, "up"], capture_output=True, check=True, cwd=PROJECT, env=environment)
    cluster = Cluster(name)
    try:
        node = cluster.node(1)
        assert json.loads(node.run("cat", "/etc/cni/net.d/00-multus.conf").stdout)["type"] == "multus"
        for program, source in (("multus", multus), ("coordinator", extra / "coordinator")):
            digests = [
                where.stdout.split()[0]
                for where in (
                    node.run("sha256sum", f"/opt/cni/bin/{program}"),
                    subprocess.run(["sha256sum", source], capture_output=True, text=True, check=True),
                )
            ]
            assert digests[0] == digests[1]
        annotations = {DEFAULT_NETWORK: "kube-system/ipvlan"}
        cluster.apply(json.dumps(scenario.pod("a", namespace="default", node=1, annotations=annotations)))
        cluster.wait_ready("default/a")
        assert status_of(cluster, "default/a")["name"] == "kube-system/ipvlan"
    finally:
        cluster.down()
