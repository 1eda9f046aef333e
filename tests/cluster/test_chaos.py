"""The quick ones of `make chaos`: what is done to a running installation, and nothing lost."""

import pytest

from tests.cluster.chaos import registry
from tests.cluster.chaos.lab import Lab
from tests.losses import nothing_lost


@pytest.fixture(scope="module")
def lab(cluster):
    lab = Lab(cluster)
    lab.prepare()
    yield lab
    lab.remove()


QUICK = [each for each in registry.scenarios() if each.quick]


@pytest.mark.parametrize("chosen", QUICK, ids=[each.name for each in QUICK])
def test_nothing_is_lost_by(lab, chosen):
    outcome = registry.attempt(lab, chosen)
    print(outcome.seen)
    nothing_lost(outcome.lost)
