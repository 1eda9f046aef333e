"""What people apply: their own overlays, all of them at an upgrade. A folder of ours by itself names no image."""

import re
from pathlib import Path

import pytest

from tests.unit.manifests.overlays import blocks
from tests.unit.manifests.test_manifests import MANIFESTS, ROOT

OPERATIONS = "docs/operations.md"
WITHOUT_IMAGES = MANIFESTS / "monitoring"
FOLDERS = sorted({file.parent for file in MANIFESTS.rglob("kustomization.yaml")} - {WITHOUT_IMAGES})
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_an_upgrade_applies_every_overlay_that_an_installation_has() -> None:
    text = "".join(page.read_text() for page in PAGES)
    overlays = set(re.findall(r"^    # (deploy[\w-]*)/kustomization\.yaml", text, re.MULTILINE))
    assert {"deploy", "deploy-monitoring"} <= overlays
    applied = set(re.findall(r"^kubectl apply -k (\S+)", "".join(blocks(OPERATIONS, "Upgrade")), re.MULTILINE))
    assert applied == overlays - {"deploy-clean"}  # that is the uninstall's


@pytest.mark.parametrize(
    "file",
    [*(folder / "kustomization.yaml" for folder in FOLDERS), *PAGES],
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_nobody_is_told_to_apply_a_folder_that_names_images_that_there_are_not(file: Path) -> None:
    """Over an installation by an overlay, that would take away the images' names, and its patches."""
    with_images = r"manifests(?!/monitoring|/admission-policies)\S*"
    assert re.findall(rf"kubectl (?:apply|delete) -k\s+{with_images}", file.read_text()) == []
    assert re.findall(rf"[Aa]pply `{with_images}`", file.read_text()) == []
