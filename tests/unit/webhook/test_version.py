"""Both programs say which version they are."""

import os
import subprocess
import sys

import pytest
from prometheus_client import generate_latest

import reconciler.metrics
import webhook.metrics
from webhook.version import VERSION


@pytest.mark.parametrize("program", ["webhook", "reconciler"])
@pytest.mark.parametrize(("of_the_image", "told"), [("abc123", "abc123"), ("", "unknown")])
def test_a_program_prints_its_version_and_the_commit_of_its_image(program: str, of_the_image: str, told: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", program, "--version"],
        env={**os.environ, "IPVLAN_BANDWIDTH_REVISION": of_the_image},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"ipvlan-bandwidth {VERSION}, revision {told}\n", "")


def test_both_have_their_version_in_a_metric() -> None:
    sample = f'ipvlan_bandwidth_build_info{{revision="unknown",version="{VERSION}"}} 1.0'
    for text in (generate_latest(reconciler.metrics.Metrics().registry), webhook.metrics.Metrics().render()):
        assert sample in text.decode().splitlines()
