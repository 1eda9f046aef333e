"""What `make bench-reconciler` reads of a reconciler's limits, so that the tests tell when it can do so no longer."""

from contextlib import closing

import pytest

from reconciler.shaping import Shaper
from tests.bench.reconciler.world import SLOTS, Limits, Pod
from tests.kernel import lab


@pytest.mark.usefixtures("wire")
def test_a_pods_rate_is_read_as_soon_as_there_is_one() -> None:
    pod, other = Pod(1), Pod(2)
    with (
        closing(Shaper.start(slots=SLOTS, record=lab.RECORD)) as shaper,
        lab.pod(pod.name, "eA", "172.51.0.100", uid=pod.uid) as made,
    ):
        with pytest.raises(AssertionError, match="nothing is shaped"):
            Limits(pod)
        shaper.shape(made.uid, made.netns, lab.limits(egress="50M"))
        with closing(Limits(pod)) as limits:
            assert (limits.rate(pod), limits.rate(other)) == (50_000_000, 0)
        shaper.release(made.uid, made.netns)
