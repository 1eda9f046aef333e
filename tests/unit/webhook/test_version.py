"""Both programs say which version they are."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import generate_latest

import reconciler.metrics
import webhook.metrics
from webhook.common.version import VERSION

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("program", ["webhook", "reconciler"])
def test_a_program_prints_its_version_and_in_an_image_the_commit_of_that(program: str, tmp_path: Path) -> None:
    for package in ("webhook", "reconciler"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))

    def printed() -> tuple[int, str, str]:
        asked = [sys.executable, "-m", program, "--version"]
        ran = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=False)
        return ran.returncode, ran.stdout, ran.stderr

    assert printed() == (0, f"ipvlan-bandwidth {VERSION}, revision unknown\n", "")
    (tmp_path / "webhook/common/revision").write_text("abc123\n")
    assert printed() == (0, f"ipvlan-bandwidth {VERSION}, revision abc123\n", "")


def test_both_have_their_version_in_a_metric() -> None:
    sample = f'ipvlan_bandwidth_build_info{{revision="unknown",version="{VERSION}"}} 1.0'
    for metrics in (reconciler.metrics.Metrics(), webhook.metrics.Metrics()):
        assert sample in generate_latest(metrics.registry).decode().splitlines()
