"""The webhook's drain before a real API server, whose client repeats no admission that meets a closed connection."""

import json
import subprocess
import sys

from tests.cluster.control_plane import ALONE
from tests.cluster.losses import nothing_lost


def test_no_admission_fails_while_both_replicas_are_replaced_under_50_creations_a_second() -> None:
    ran = subprocess.run(
        [*ALONE, sys.executable, "-m", "tests.cluster.drain"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    nothing_lost(result["failures"])
    assert result["admitted"] > 300
