"""What the documentation has people write into an overlay, taken from there and rendered as kubectl does it."""

import os
import re
from pathlib import Path

import yaml

from tests.unit.manifests.test_manifests import ROOT, Object, rendered


def blocks(page: str, heading: str) -> list[str]:
    """All that is indented as code below a heading, as it is typed."""
    text = (ROOT / page).read_text()
    (section,) = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    found = re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)
    return [re.sub(r"^    ", "", each, flags=re.MULTILINE) for each in found]


def block(page: str, heading: str, words: str) -> str:
    """That block which has these words in it."""
    (found,) = [each for each in blocks(page, heading) if words in each]
    return found


def patched(overlay: str, folder: Path, tmp_path: Path) -> list[Object]:
    """The manifests of a folder with the patches of an overlay."""
    resources = [os.path.relpath(folder, tmp_path.resolve())]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(yaml.safe_load(overlay) | {"resources": resources}))
    return rendered(tmp_path)
