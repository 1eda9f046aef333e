"""Several CPUs at once in one bucket: the timeline is theirs together, without a lock."""

import os

import pytest

from reconciler.shaping import Shaper
from tests.kernel import lab
from tests.kernel.counted import by_limit
from tests.kernel.lab import Pod, limits
from webhook.common.contract import Direction

CPUS = 4
PINGS = 10


@pytest.mark.skipif((os.cpu_count() or 1) < CPUS, reason="user-mode-linux has one CPU")
@pytest.mark.parametrize("rate", [20, 100])
def test_four_cpus_that_send_at_once_have_the_limit_together(
    shaper: Shaper, limited: Pod, peer: Pod, rate: int
) -> None:
    """No more than the limit to a hundredth, but from 0.85 of it on.

    Emulated CPUs stand still now and then, and an idle timeline saves nothing up. That no charge of theirs is lost is
    for tests/unit/shaper/test_parallel.py to show.
    """
    shaper.shape(limited.uid, limited.netns, limits(egress=f"{rate}M"))
    senders = [lab.Module(limited, "tests.kernel.udp", "flood", peer.address, str(cpu), "12") for cpu in range(CPUS)]
    with lab.Module(peer, "tests.kernel.udp", "count", "14") as counting:
        for sender in senders:
            sender.go()
        lab.sleep(4)
        ping = ("ping", "-n", "-W", "2", "-i", "0.3", "-c", str(PINGS), peer.address)
        answered = limited.run(*ping, check=False).count(" time=")
        sent = [int(sender.lines()[0]) for sender in senders]
        # Not the beginning, when some of the senders are yet to come, and not the end, when some are gone.
        carried = lab.carried(counting.lines(), after=4, until=10)
    drops = by_limit(shaper, limited, Direction.EGRESS).drops
    print(f"PARALLEL {rate}M: {carried:.2f} Mbit/s carried, packets sent by CPU {sent}, dropped {drops}")
    print(f"and {answered} of {PINGS} pings answered")
    assert all(each * 1514 * 8 / 12e6 > rate / CPUS for each in sent), f"{sent}: not all CPUs kept the limit busy"
    assert drops > 1000
    assert answered >= PINGS - 1
    assert rate * 0.85 <= carried <= rate * 1.01
