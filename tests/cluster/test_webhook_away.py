"""What the manifest's selector and matchConditions let pass by themselves, as no webhook answers here.

With one that does, these updates pass also if the API server asks about all of them: it would allow them.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.api_only import ApiOnly
from tests.cluster.commands import ClusterError, wait_for
from tests.cluster.layout import PROJECT
from webhook.common.contract import (
    DEFAULT_NETWORK_ANNOTATION,
    EGRESS_ANNOTATION,
    INGRESS_ANNOTATION,
    MANAGED_LABEL,
    MIRROR_ANNOTATION,
    NETWORK_LABEL,
)

PATIENCE_S = 30.0
NETWORK = {DEFAULT_NETWORK_ANNOTATION: "default/mine"}
CHANGED = ("annotate", "pod", "old", f"{EGRESS_ANNOTATION}=20M", "--overwrite")
FINALISED = ("patch", "pod", "old", "--type=json", "-p", '[{"op": "remove", "path": "/metadata/finalizers"}]')
NEW = ("run", "new", "--image=any")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiOnly]:
    """An API server with the configuration as it is installed, and with nothing that it could ask."""
    made = ApiOnly(tmp_path_factory.mktemp("plane"))
    try:
        made.start()
        rendered = yaml.safe_load_all(made.kubectl("kustomize", str(PROJECT / "manifests")))
        (configuration,) = [each for each in rendered if each["kind"] == "MutatingWebhookConfiguration"]
        made.kubectl("apply", "-f", "-", text=json.dumps(configuration))
        yield made
    finally:
        made.kill()


class Space:
    """A namespace with a Pod in it that has a limit on egress, a default network and a finalizer."""

    def __init__(self, plane: ApiOnly) -> None:
        self._plane = plane
        self.name = f"space-{os.urandom(3).hex()}"
        plane.kubectl("create", "namespace", self.name)
        annotations = {EGRESS_ANNOTATION: "100M", **NETWORK}
        metadata = {"name": "old", "annotations": annotations, "finalizers": ["example.com/wait"]}
        spec = {"containers": [{"name": "a", "image": "b"}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        self.do("create", "-f", "-", text=json.dumps(pod))

    def do(self, *command: str, text: str = "") -> str:
        """Raises ClusterError."""
        return self._plane.kubectl("-n", self.name, *command, text=text)

    def passes(self, *command: str) -> bool:
        """Whether the API server would do it; what it would not, it would not as the webhook does not answer."""
        try:
            self.do(*command, "--dry-run=server")
        except ClusterError as error:
            if 'failed calling webhook "pods.ipvlan-bandwidth.io"' in str(error):
                return False
            raise
        return True

    def old(self) -> Any:
        return json.loads(self.do("get", "pod", "old", "-o", "json"))

    def opt_in(self) -> None:
        """And wait until the API server heeds it."""
        self._plane.kubectl("label", "namespace", self.name, f"{NETWORK_LABEL}=kube-system.ipvlan")
        wait_for("the opt-in", lambda: not self.passes(*NEW), PATIENCE_S)

    def opt_out(self) -> None:
        self._plane.kubectl("label", "namespace", self.name, f"{NETWORK_LABEL}-")


@pytest.fixture
def other(plane: ApiOnly) -> Space:
    return Space(plane)


@pytest.fixture
def shop(plane: ApiOnly) -> Space:
    """One that opted in, with the Pod that was there before."""
    made = Space(plane)
    made.opt_in()
    return made


@pytest.mark.parametrize(
    "command",
    [
        NEW,
        CHANGED,
        ("annotate", "pod", "old", f"{EGRESS_ANNOTATION}-"),
        ("annotate", "pod", "old", f"{INGRESS_ANNOTATION}=20M"),
        ("label", "pod", "old", f"{MANAGED_LABEL}=false"),
        ("annotate", "pod", "old", f"{DEFAULT_NETWORK_ANNOTATION}-"),
        ("annotate", "pod", "old", f"{DEFAULT_NETWORK_ANNOTATION}= ", "--overwrite"),
        ("annotate", "pod", "old", f"{DEFAULT_NETWORK_ANNOTATION}=[ ]", "--overwrite"),
    ],
    ids=[
        "a new Pod",
        "a changed limit",
        "one taken away",
        "one added",
        "the managed label",
        "the network dropped",
        "the network made blank",
        "no network in a list",
    ],
)
def test_what_the_webhook_has_a_say_in_fails_in_an_opted_in_namespace_and_passes_in_another(
    shop: Space, other: Space, command: tuple[str, ...]
) -> None:
    assert not shop.passes(*command)
    assert other.passes(*command)


def test_an_older_pod_can_be_labelled_annotated_finalised_and_told_the_state_of(shop: Space) -> None:
    shop.do("label", "pod", "old", "a=b")
    shop.do("annotate", "pod", "old", "example.com/a=b", f"{DEFAULT_NETWORK_ANNOTATION}=default/other", "--overwrite")
    shop.do(*FINALISED)
    shop.do("patch", "pod", "old", "--subresource=status", "-p", '{"status": {"phase": "Running"}}')
    old = shop.old()
    assert old["metadata"]["labels"] == {"a": "b"}
    assert old["metadata"]["annotations"] == {
        EGRESS_ANNOTATION: "100M",
        DEFAULT_NETWORK_ANNOTATION: "default/other",
        "example.com/a": "b",
    }
    assert "finalizers" not in old["metadata"]
    assert old["status"]["phase"] == "Running"


def test_the_mirror_of_a_static_pod_can_be_created_as_that_pod_runs_already(shop: Space) -> None:
    metadata = {"name": "mirror", "annotations": {MIRROR_ANNOTATION: "x"}}
    spec = {"nodeName": "node", "containers": [{"name": "a", "image": "b"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    shop.do("create", "-f", "-", text=json.dumps(pod))
    assert MIRROR_ANNOTATION in json.loads(shop.do("get", "pod", "mirror", "-o", "json"))["metadata"]["annotations"]
    for changed in (f"{MIRROR_ANNOTATION}-", f"{MIRROR_ANNOTATION}=y"):
        with pytest.raises(ClusterError, match="may not remove or update mirror pod annotation"):
            shop.do("annotate", "pod", "mirror", changed, "--overwrite")
    with pytest.raises(ClusterError, match="may not add mirror pod annotation"):
        shop.do("annotate", "pod", "old", f"{MIRROR_ANNOTATION}=x", f"{EGRESS_ANNOTATION}=20M", "--overwrite")


def test_an_older_pod_that_is_deleted_goes_even_with_another_limit(shop: Space) -> None:
    shop.do("delete", "pod", "old", "--wait=false")
    shop.do(*CHANGED)
    shop.do(*FINALISED)
    shop.do("wait", "--for=delete", "pod/old", "--timeout=30s")


def test_with_the_label_off_its_namespace_a_limit_can_be_changed_and_a_pod_created(shop: Space) -> None:
    """README's emergency exit, in the order of docs/operations.md."""
    assert not shop.passes(*CHANGED)
    shop.opt_out()
    wait_for("the exit", lambda: shop.passes(*CHANGED), PATIENCE_S)
    shop.do(*CHANGED)
    shop.do(*NEW)
    assert shop.old()["metadata"]["annotations"] == {EGRESS_ANNOTATION: "20M", **NETWORK}
