"""The manifests applied over themselves, by the client as README has it, and by the server as GitOps tools do.

Server-side that is a conflict wherever the API server stores a value in other words than the manifest's.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import cert_manager
from tests.cluster.api_only import ApiOnly
from tests.cluster.layout import PROJECT

MANIFESTS = PROJECT / "manifests"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiOnly]:
    made = ApiOnly(tmp_path_factory.mktemp("plane"))
    try:
        made.start()
        cert_manager.define(made.kubectl)
        yield made
    finally:
        made.kill()


def stored(plane: ApiOnly, folder: Path) -> list[Any]:
    items: list[Any] = json.loads(plane.kubectl("get", "-k", str(folder), "-o", "json"))["items"]
    return items


@pytest.mark.parametrize("name", [".", "cert-manager", "clean"])
def test_applied_again_by_either_way_nothing_changes(plane: ApiOnly, name: str) -> None:
    folder = MANIFESTS / name
    plane.kubectl("apply", "-k", str(folder))
    before = stored(plane, folder)
    assert len(before) > 2
    plane.kubectl("apply", "-k", str(folder))
    assert stored(plane, folder) == before
    plane.kubectl("apply", "--server-side", "-k", str(folder))
    after = stored(plane, folder)
    for item in before + after:
        # kubectl's record of what was applied has other words then, and a Deployment's generation counts that.
        del item["metadata"]
    assert after == before
