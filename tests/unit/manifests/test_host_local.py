"""The example without Spiderpool: the file on each node is where Multus looks for it, and where nobody else does.

In /etc/cni/net.d a fresh node's runtime takes it for every Pod, and Multus for the cluster's own network.
"""

import json
import re
from pathlib import Path

import pytest

from tests.cluster.layout import HERE, NODES
from tests.cluster.nodes import cni_configuration
from tests.unit.manifests.test_manifests import MANIFESTS, ROOT, objects, one

EXAMPLE = MANIFESTS / "examples/network-host-local.yaml"
MULTUS = "/etc/cni/multus/net.d"
"""Its `confDir`, where its configuration names none (k8snetworkplumbingwg/multus-cni, pkg/types/conf.go)."""
TOLD = [
    *(ROOT / "docs").glob("*.md"),
    *ROOT.glob("*.md"),
    *(file for file in MANIFESTS.rglob("*") if file.is_file()),
    *(HERE / "addons").iterdir(),
]


@pytest.mark.parametrize("file", TOLD, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_configuration_of_a_network_is_to_be_put_where_the_runtime_looks(file: Path) -> None:
    assert re.findall(r"net\.d/[\w.-]+", file.read_text().replace(f"{MULTUS}/", "")) == []


def test_the_file_of_the_example_is_where_multus_looks_and_of_the_networks_name() -> None:
    (place,) = re.findall(rf"{MULTUS}/(\S+)", EXAMPLE.read_text())
    text = re.findall(r"^#   (.*)$", EXAMPLE.read_text().split(place)[1], re.MULTILINE)
    network = json.loads("\n".join(text))
    assert network["name"] == one("NetworkAttachmentDefinition", "ipvlan", objects(EXAMPLE))["metadata"]["name"]
    # A list in a file of another suffix is an error to Multus.
    assert place.endswith(".conflist")
    assert [plugin["type"] for plugin in network["plugins"]] == ["ipvlan"]


@pytest.mark.parametrize("node", NODES)
def test_the_embedded_clusters_nodes_have_it_where_a_multus_looks_that_is_told_nothing(node: int) -> None:
    files = cni_configuration(node, real_multus=True)
    (network,) = [name for name, config in files.items() if config["name"] == "ipvlan"]
    assert f"/etc/cni/{network}".rpartition("/")[0] == MULTUS
    multus = files["net.d/00-multus.conf"]
    assert "confDir" not in multus
    assert multus["clusterNetwork"].removeprefix("/etc/cni/") in files
    assert f'defaultConfDir = "{MULTUS}"' in (HERE / "binaries/multus-standin/main.go").read_text()
