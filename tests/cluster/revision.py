"""Which version of the program a result is of."""

import subprocess

from tests.cluster.layout import PROJECT


def revision() -> str:
    """The commit that is checked out, and whether files differ from it."""
    described = ("git", "describe", "--always", "--dirty", "--exclude=*")
    done = subprocess.run(described, capture_output=True, text=True, check=False, cwd=PROJECT)
    return done.stdout.strip() or "unknown"
