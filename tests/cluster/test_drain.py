"""The webhook's drain before a real API server, whose client repeats no admission that meets a closed connection."""

from tests.cluster.control_plane import run_alone
from tests.losses import nothing_lost


def test_no_admission_fails_while_both_replicas_are_replaced_under_50_creations_a_second() -> None:
    result = run_alone("tests.cluster.drain", 120)
    nothing_lost(result["failures"])
    assert result["admitted"] > 300
