"""The main job on the embedded cluster: labels and annotations in, admitted Pods and refusals out."""

import json
import os

from tests.cluster import scenario
from tests.cluster.cluster import wait_for
from tests.cluster.scenario import EGRESS, INGRESS, limits
from tests.cluster.test_product.lab import ORDINARY, SPACE


def refused(cluster, *command, says, **options):
    """Whether kubectl fails and gives this reason."""
    done = cluster.kubectl(*command, check=False, **options)
    return done.returncode != 0 and says in done.stderr


def test_the_network_is_injected_the_values_are_normalised_and_the_pod_is_labelled(installed, limited):
    metadata = installed.pod(limited[1])["metadata"]
    assert metadata["annotations"]["v1.multus-cni.io/default-network"] == "kube-system/ipvlan"
    assert metadata["annotations"][INGRESS] == metadata["annotations"][EGRESS] == "100M"
    assert metadata["labels"]["ipvlan-bandwidth.io/managed"] == "true"
    status = json.loads(metadata["annotations"]["k8s.v1.cni.cncf.io/network-status"])
    assert status[0]["name"] == "kube-system/ipvlan"


def test_a_namespace_that_did_not_opt_in_is_left_alone(installed):
    wrong = scenario.pod("plain", namespace=ORDINARY, node=1)
    installed.apply(json.dumps(wrong))
    installed.wait_ready(f"{ORDINARY}/plain")
    metadata = installed.pod(f"{ORDINARY}/plain")["metadata"]
    assert "v1.multus-cni.io/default-network" not in metadata.get("annotations", {})
    assert installed.pod(f"{ORDINARY}/plain")["status"]["podIP"].startswith("10.244.1.")


def test_a_bare_pod_with_a_mistyped_limit_is_refused_where_it_is_applied(installed):
    wrong = scenario.pod("wrong", namespace=SPACE, annotations=limits("100m", "1Mbps"))
    done = installed.kubectl("apply", "-f", "-", input=json.dumps(wrong), check=False)
    assert done.returncode == 1
    assert f"{INGRESS}" in done.stderr
    assert 'did you mean "100M"?' in done.stderr
    assert 'did you mean "1M"?' in done.stderr


def test_a_workload_with_a_mistyped_limit_says_why_in_describe(installed):
    installed.apply(json.dumps(scenario.deployment("wrong", namespace=SPACE, annotations=limits("100m"), replicas=1)))
    describe = ("-n", SPACE, "describe", "rs", "-l", "app=wrong")
    text = wait_for(
        "the refusal", lambda: t if "FailedCreate" in (t := installed.kubectl(*describe).stdout) else "", 30
    )
    assert 'did you mean "100M"?' in text
    installed.kubectl("-n", SPACE, "delete", "deployment", "wrong")


def test_a_malformed_label_refuses_the_pods_and_says_what_it_should_look_like(installed):
    scenario.namespace(installed, "mislabelled", network="ipvlan")
    pod = scenario.pod("any", namespace="mislabelled")
    # A dry run: one that is allowed, as the webhook does not know the namespace yet, leaves nothing.
    apply, text = ("apply", "--dry-run=server", "-f", "-"), json.dumps(pod)
    wait_for("the refusal", lambda: refused(installed, *apply, says="NAMESPACE.NAME", input=text), 30)


def test_a_pod_older_than_the_opt_in_can_be_labelled_finalised_and_finished_with_a_bad_annotation(installed):
    # A new name: of a first attempt the label and the Pod may be left.
    space = f"older-{os.urandom(3).hex()}"
    scenario.namespace(installed, space, network=None)
    old = scenario.pod("old", namespace=space, node=1)
    old["metadata"]["finalizers"] = ["example.com/wait"]
    installed.apply(json.dumps(old))
    installed.wait_ready(f"{space}/old")
    patch = json.dumps({"metadata": {"annotations": {INGRESS: "100m"}}})
    installed.kubectl("-n", space, "patch", "pod", "old", "--type=merge", "-p", patch)
    scenario.namespace(installed, space)
    # From when on the API server's and the webhook's caches know of the label.
    worse = ("-n", space, "annotate", "pod", "old", f"{EGRESS}=nonsense", "--dry-run=server")
    wait_for("the refusal", lambda: refused(installed, *worse, says=EGRESS), 30)
    installed.kubectl("-n", space, "label", "pod", "old", "a=b")
    installed.kubectl("-n", space, "delete", "pod", "old", "--wait=false")
    installed.kubectl(
        "-n", space, "patch", "pod", "old", "--type=json", "-p", '[{"op":"remove","path":"/metadata/finalizers"}]'
    )
    installed.kubectl("-n", space, "wait", "--for=delete", "pod/old", "--timeout=60s", timeout=70)
