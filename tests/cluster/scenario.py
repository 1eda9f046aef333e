"""What the demo and the product's tests set up on the embedded cluster: the installation, namespaces, Pods."""

import json
import time
from collections.abc import Mapping
from typing import Any

from tests.cluster.cluster import Cluster, ClusterError, wait_for
from tests.cluster.layout import HERE, PROJECT
from tests.losses import nothing_lost

OWN = "ipvlan-bandwidth"
WEBHOOK, RECONCILER = "app.kubernetes.io/name=webhook", "app.kubernetes.io/name=reconciler"
LABEL = "ipvlan-bandwidth.io/network"
NETWORK = "kube-system.ipvlan"
DEFAULT_NETWORK, MANAGED = "v1.multus-cni.io/default-network", "ipvlan-bandwidth.io/managed"
STATUS = "k8s.v1.cni.cncf.io/network-status"
INGRESS, EGRESS = "kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"
IMAGE = "localhost/tools:1"
# Of the webhook's Deployment, and of its --drain-seconds.
WEBHOOKS, DRAIN_S = 2, 5.0
# Kubelet waits for 2 s before each restart of a container (node/kubelet.yaml); the rest is for a busy node.
RESTART_S = 60


def install(cluster: Cluster) -> None:
    """Install as users do, and wait until all of it is there."""
    cluster.kubectl("apply", "-k", str(PROJECT / "manifests"))
    for workload in ("deployment/webhook", "daemonset/reconciler"):
        done = cluster.kubectl("-n", OWN, "rollout", "status", workload, "--timeout=150s", check=False, timeout=160)
        if done.returncode != 0:
            raise ClusterError(f"{workload} is not ready:\n{done.stdout}{done.stderr}\n{story(cluster)}")


def uninstall(cluster: Cluster) -> None:
    """Uninstall as users do, but with the webhook ended before.

    Its replicas would linger on the connections that the API server keeps, and the namespace's controller would look
    for what is left of them but once in half their grace. How they drain is tested where they are replaced (drain.py,
    `webhook-rolled`).
    """
    cluster.kubectl("-n", OWN, "scale", "deployment/webhook", "--replicas=0")
    wait_for("the webhook's replicas to be told to end", lambda: not webhooks(cluster), 60)
    # Of a Pod that ends already, a shorter grace is taken.
    cluster.kubectl("-n", OWN, "delete", "pod", "-l", WEBHOOK, "--grace-period=1", timeout=180)
    cluster.kubectl("delete", "-k", str(PROJECT / "manifests"), timeout=180)


def roll_out_webhook(cluster: Cluster) -> None:
    """Wait until the webhook's replicas are those of its Deployment as it is now, and the certificates theirs alone.

    The ones before linger on the connections that API servers keep, and leave the certificates alone then.
    """
    status = ("rollout", "status", "deployment/webhook", "--timeout=150s")
    done = cluster.kubectl("-n", OWN, *status, check=False, timeout=160)
    if done.returncode != 0:
        raise ClusterError(f"the webhook is not ready:\n{done.stdout}{done.stderr}\n{story(cluster)}")
    wait_for("the webhook's old replicas to be told to end", lambda: len(webhooks(cluster)) == WEBHOOKS, 60)
    time.sleep(DRAIN_S + 2)


def webhooks(cluster: Cluster) -> list[Any]:
    """The webhook's Pods, but for those that were told to end."""
    found = cluster.pods(OWN, WEBHOOK)
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def story(cluster: Cluster) -> str:
    """What the installation's own Pods say, for when something is wrong."""
    parts = [cluster.kubectl("-n", OWN, "get", "pods", "-o", "wide", check=False).stdout]
    parts.append(cluster.kubectl("-n", OWN, "get", "events", check=False).stdout[-3000:])
    for app in ("webhook", "reconciler"):
        logs = cluster.kubectl("-n", OWN, "logs", "-l", f"app.kubernetes.io/name={app}", "--tail=20", check=False)
        parts.append(f"--- {app}\n{logs.stdout}{logs.stderr}")
    return "\n".join(parts)


def namespace(cluster: Cluster, name: str, *, network: str | None = NETWORK) -> None:
    """A namespace, opted in by its label unless `network` is None; with the account that bare Pods need to be made."""
    labels = {} if network is None else {LABEL: network}
    cluster.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}))
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=30s")


def limits(ingress: str | None = None, egress: str | None = None) -> dict[str, str]:
    """The annotations of these limits."""
    return {key: value for key, value in ((INGRESS, ingress), (EGRESS, egress)) if value is not None}


def pod(
    name: str,
    *,
    namespace: str,
    node: int | None = None,
    annotations: Mapping[str, str] | None = None,
    command: list[str] | None = None,
) -> dict[str, Any]:
    """A Pod that sleeps, or runs a command."""
    spec: dict[str, Any] = {
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": "main",
                "image": IMAGE,
                "imagePullPolicy": "Never",
                "command": command or ["sleep", "1000000"],
            }
        ],
    }
    if node is not None:
        spec["nodeSelector"] = {"kubernetes.io/hostname": f"node{node}"}
    metadata = {"name": name, "namespace": namespace, "annotations": dict(annotations or {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def gone(cluster: Cluster, namespace: str, *names: str) -> None:
    """Wait until no Pod has these names any longer: one applied onto a Pod that is ending ends with it."""
    cluster.kubectl("-n", namespace, "delete", "pod", *names, "--ignore-not-found", "--timeout=90s")


def deployment(name: str, *, namespace: str, annotations: Mapping[str, str], replicas: int = 2) -> dict[str, Any]:
    """A Deployment with one Pod a node."""
    template = pod(name, namespace=namespace, annotations=annotations)
    template["metadata"] = {"labels": {"app": name}, "annotations": dict(annotations)}
    apart = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": name}}}
    template["spec"]["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": template["metadata"], "spec": template["spec"]},
        },
    }


def pods_of(cluster: Cluster, namespace: str, name: str) -> dict[int, str]:
    """The running Pods of a Deployment, NAMESPACE/NAME by the number of their node."""
    items = cluster.kubectl_json("-n", namespace, "get", "pods", "-l", f"app={name}")["items"]
    return {
        int(item["spec"]["nodeName"].removeprefix("node")): f"{namespace}/{item['metadata']['name']}"
        for item in items
        if "deletionTimestamp" not in item["metadata"] and "nodeName" in item["spec"]
    }


def events_of(cluster: Cluster, pod: str) -> list[tuple[str, str]]:
    """Reason and message of the events about a Pod."""
    space, name = pod.split("/")
    selector = f"involvedObject.name={name}"
    items = cluster.kubectl_json("-n", space, "get", "events", "--field-selector", selector)["items"]
    return [(item["reason"], item["message"]) for item in items]


def wait_for_event(cluster: Cluster, pod: str, reason: str, timeout: float = 30) -> str:
    """The message of a Pod's event, once it is there."""

    def find() -> str:
        told = [message for found, message in events_of(cluster, pod) if found == reason]
        return told[-1] if told else ""

    return wait_for(f"event {reason} on {pod}", find, timeout)


def reconciler_on(cluster: Cluster, node: int) -> str:
    """The name of the reconciler's Pod on a node, once there is one that was not told to end."""

    def find() -> str:
        items = cluster.pods(OWN, RECONCILER)
        here = [each["metadata"] for each in items if each["spec"].get("nodeName") == f"node{node}"]
        return next((each["name"] for each in here if "deletionTimestamp" not in each), "")

    return wait_for(f"a reconciler on node {node}", find, 60)


def metrics(cluster: Cluster, reconciler: str) -> dict[str, float]:
    """The samples that this Pod serves, by name and labels; none while it does not answer."""
    path = f"/api/v1/namespaces/{OWN}/pods/{reconciler}:9745/proxy/metrics"
    lines = cluster.kubectl("get", "--raw", path, check=False).stdout.splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def observe(cluster: Cluster, node: int, *flags: str) -> str:
    """What `python -m reconciler observe` prints on a node."""
    command = ["exec", reconciler_on(cluster, node), "--", "python3", "-m", "reconciler", "observe", *flags]
    return cluster.kubectl("-n", OWN, *command).stdout


def kernel_limits(cluster: Cluster, pod: str) -> dict[str, int]:
    """The limits that the kernel holds for a Pod, in bit/s by direction."""
    return limits_in(observe(cluster, cluster.node_of(pod).number, "--json"), pod)


def limits_in(observed: str, pod: str) -> dict[str, int]:
    """Those of a Pod in what `observe --json` prints, in bit/s by direction."""
    return {row["direction"]: row["bits_per_second"] for row in json.loads(observed) if row["pod"] == pod}


def still_limited(cluster: Cluster, pod: str, expected: Mapping[str, int]) -> None:
    """Raise LostError unless the kernel holds these limits, which were in force before, for a Pod."""
    held = kernel_limits(cluster, pod)
    if held != expected:
        nothing_lost([f"{pod} is limited to {held}, no longer to {expected}"])


def annotate(cluster: Cluster, pod: str, *changes: str) -> None:
    """`kubectl annotate --overwrite` of a Pod."""
    space, name = pod.split("/")
    cluster.kubectl("-n", space, "annotate", "pod", name, "--overwrite", *changes)


def reconciler_restarts(cluster: Cluster, node: int) -> int:
    """How often the reconciler's container on a node has started again."""
    item = cluster.pod(f"{OWN}/{reconciler_on(cluster, node)}")
    return int(item["status"]["containerStatuses"][0]["restartCount"])


def wait_for_restart(cluster: Cluster, node: int, before: int) -> None:
    """Wait until the reconciler's container on a node has started more often than `before`."""
    wait_for("the reconciler's restart", lambda: reconciler_restarts(cluster, node) > before, RESTART_S)


def sandbox_pid(cluster: Cluster, pod: str) -> str:
    """The pid, on its node, of a Pod's pause process; empty while there is none."""
    script = "import sys; sys.path.insert(0, sys.argv[1]); import agent; print(agent.sandbox_pid(sys.argv[2]))"
    done = cluster.node_of(pod).run("python3", "-c", script, str(HERE / "node"), pod, check=False)
    return done.stdout.strip()
