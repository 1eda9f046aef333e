"""What is read of a link's message; tests/kernel has the messages of real kernels."""

from contextlib import nullcontext

import pytest

from reconciler.kernel import observe
from reconciler.kernel.observe import observe_netns
from tests.unit.reconciler.link_messages import Kernel, link

MASTER, ALLOWED = 7, 62_780


@pytest.mark.parametrize(
    ("told", "allowed"),
    [
        (link(2, "eth0", "ipvlan", gso=25_000, tso=65_536, link=MASTER), 65_536),
        (link(2, "eth0", "ipvlan", gso=25_000, link=MASTER), ALLOWED),
        (link(2, "veth0", "veth", gso=25_000, link=MASTER), ALLOWED),
        (link(2, "veth1", "veth", gso=25_000, link=MASTER), None),
        (link(2, "eth0", "ipvlan", gso=25_000, link=MASTER + 1), None),
        (link(2, "eth0", "ipvlan", gso=25_000), None),
    ],
    ids=["told", "its master's", "its peer's", "nobody's concern", "not there", "no master"],
)
def test_how_long_a_driver_lets_packets_be_is_its_masters_where_the_kernel_does_not_tell(monkeypatch, told, allowed):
    node = Kernel(link(MASTER, "eno1", gso=ALLOWED))
    monkeypatch.setattr(observe.Netlink, "here", lambda: nullcontext(node))
    (held,) = observe_netns(Kernel(told)).links
    assert (held.link.gso_max_bytes, held.link.tso_max_bytes) == (25_000, allowed)
