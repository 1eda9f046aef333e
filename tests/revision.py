"""Which version of the program a result is of."""

import shutil
import subprocess
from pathlib import Path

PROJECT = Path(__file__).parents[1]

# What is measured is kept there, and does not change what is measured next.
RESULTS = ("tests/bench/results", "tests/cluster/results")


def revision() -> str:
    """The commit that is checked out, and `-dirty` when files differ from it, but for results; unknown without git."""
    if shutil.which("git") is None:
        return "unknown"
    commit = _git("describe", "--always", "--exclude=*").stdout.strip()
    if not commit:
        return "unknown"
    differs = _git("diff", "--quiet", "HEAD", "--", ".", *(f":(exclude){folder}" for folder in RESULTS)).returncode
    return commit + ("-dirty" if differs else "")


def _git(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(("git", *argv), capture_output=True, text=True, check=False, cwd=PROJECT)
