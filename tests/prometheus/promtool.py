"""Prometheus' own tool, which tests/setup/binaries.sh builds."""

import subprocess

from tests.cluster import launch


def promtool(*arguments: str, given: bytes = b"") -> tuple[int, str]:
    """Its exit status, and all that it says."""
    command = [str(launch.program("promtool")), *arguments]
    done = subprocess.run(command, input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout.decode()
