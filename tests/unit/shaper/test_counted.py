"""What the kernel's tests read of a Pod's counters is that Pod's, though all of them give theirs the same names."""

from types import SimpleNamespace

import pytest

from reconciler.counters import DirectionCounters, PodCounters
from reconciler.kernel import netns
from reconciler.slots import SlotOwner
from tests.kernel.counted import by_limit
from tests.kernel.lab import Pod
from webhook.common.contract import Direction

POD = Pod("limited", "uid-of-limited", "172.51.0.100")


def counted(packets):
    held = DirectionCounters(1_000_000, 0, packets, 0, 0, 0)
    return PodCounters(POD.uid, POD.netns, {Direction.EGRESS: held})


@pytest.mark.parametrize("left_first", [True, False])
def test_what_another_test_left_under_the_same_name_is_not_taken_for_it(monkeypatch, left_first):
    slots = {SlotOwner(POD.uid, 4026532001): counted(1000), SlotOwner(POD.uid, 4026532002): counted(7)}
    if not left_first:
        slots = dict(reversed(slots.items()))
    shaper = SimpleNamespace(counters=lambda owners=tuple(slots): [slots[each] for each in owners])
    monkeypatch.setattr(netns, "inode", {POD.netns: 4026532002}.get)
    assert by_limit(shaper, POD, Direction.EGRESS).packets == 7
