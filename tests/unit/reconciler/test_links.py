"""What is read of a link's message; tests/kernel has the messages of real kernels."""

import struct
from contextlib import nullcontext

import pytest

from reconciler.bypass import Traffic
from reconciler.kernel import traffic
from reconciler.kernel.netlink import RTM_GETQDISC, Listing
from reconciler.kernel.observe import MOST_LINKS, TC_H_CLSACT, observe_netns
from reconciler.kernel.raw import link_index_of
from tests.unit.reconciler.link_messages import Kernel, attribute, link
from webhook.common.contract import Direction

MASTER, ALLOWED = 7, 62_780


@pytest.mark.parametrize(
    ("told", "allowed"),
    [
        (link(2, "eth0", "ipvlan", gso=25_000, tso=65_536, link=MASTER), 65_536),
        (link(2, "eth0", "ipvlan", gso=25_000, link=MASTER), ALLOWED),
        (link(2, "veth0", "veth", gso=25_000, link=MASTER), ALLOWED),
        (link(2, "v0", "veth", gso=25_000, link=MASTER), ALLOWED),
        (link(2, "ifb0", "ifb", gso=25_000, link=MASTER), None),
        (link(2, "eth0", "ipvlan", gso=25_000, link=MASTER + 1), None),
        (link(2, "eth0", "ipvlan", gso=25_000), None),
    ],
    ids=["told", "its master's", "its peer's", "its peer's, renamed", "nobody's concern", "not there", "no master"],
)
def test_how_long_a_driver_lets_packets_be_is_its_masters_where_the_kernel_does_not_tell(monkeypatch, told, allowed):
    node = Kernel(link(MASTER, "eno1", gso=ALLOWED))
    monkeypatch.setattr("reconciler.kernel.observe.Netlink.here", lambda: nullcontext(node))
    (held,) = observe_netns(Kernel(told)).links
    assert (held.link.gso_max_bytes, held.link.tso_max_bytes) == (25_000, allowed)


def test_a_link_is_known_by_its_index_whatever_its_name():
    assert [held.index for held in observe_netns(Kernel(link(2, "eth0", "ipvlan"), link(7, "v0", "veth"))).links] == [
        2,
        7,
    ]


def test_links_beyond_the_bound_are_known_by_index_but_for_those_with_our_names_which_are_always_looked_at():
    more = [link(10 + number, f"more{number}", "ipvlan") for number in range(MOST_LINKS)]
    kernel = Kernel(link(2, "eth0", "ipvlan"), link(3, "v0", "veth"), *more, link(200, "veth0", "veth"))
    observed = observe_netns(kernel)
    assert [held.index for held in observed.links] == [2, *range(10, 9 + MOST_LINKS), 200]
    assert (observed.unseen_ipvlan, observed.unseen_others) == (1, {3: "v0"})


@pytest.mark.parametrize(
    ("other", "has_tunnel"),
    [
        (link(3, "vxlan0", "vxlan"), True),
        (link(3, "bareudp0", "bareudp"), True),
        (link(3, "tunl0", "ipip", is_up=False), False),
        (link(3, "net1", "ipvlan", mtu=9000, stats=struct.pack("=QQQQ", 1, 2, 3, 4)), False),
    ],
    ids=["a tunnel", "another kind", "what a module makes in each netns", "not among those that are limited"],
)
def test_what_links_have_sent_is_read_with_whether_a_tunnel_is_up_beside_them(other, has_tunnel):
    eth0 = link(2, "eth0", "ipvlan", mtu=1500, stats=struct.pack("=QQQQ", 5, 6, 7, 8))
    assert traffic.sent(Kernel(eth0, other), ["eth0"]) == ({2: Traffic(8, 6)}, 1500, has_tunnel)


class Classifying(Kernel):
    """Each of the links has a clsact."""

    def dump(self, request, message_type, most):
        if message_type != RTM_GETQDISC:
            return super().dump(request, message_type, most)
        heads = [struct.pack("=16x4xiIII", link_index_of(each), 0xFFFF0000, TC_H_CLSACT, 0) for each in self.links]
        return Listing([head + attribute(1, b"clsact\0") for head in heads])


def test_filters_are_looked_for_where_packets_pass_and_of_the_ifb_none_are_received(monkeypatch):
    asked = {}

    class Filters:
        def __init__(self, *_):
            pass

        def of(self, index, hooks):
            asked[index] = set(hooks)
            return ()

    monkeypatch.setattr("reconciler.kernel.observe.Filters", Filters)
    observe_netns(Classifying(link(2, "eth0", "ipvlan"), link(3, "vethbw0", "ifb"), link(4, "ifb0", "ifb")))
    assert asked == {2: set(Direction), 3: {Direction.EGRESS}, 4: set(Direction)}
