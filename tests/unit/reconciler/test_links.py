"""What is read of a link's message; tests/kernel has the messages of real kernels."""

import errno
import struct
from contextlib import nullcontext

import pytest

from reconciler.kernel import observe
from reconciler.kernel.errors import NetlinkError
from reconciler.kernel.netlink import Listing
from reconciler.kernel.observe import RTM_GETLINK, observe_netns

IFNAME, MTU, LINK, LINKINFO, GSO_MAX_SIZE, TSO_MAX_SIZE = 3, 4, 5, 18, 41, 59
MASTER, ALLOWED = 7, 62_780


def attribute(kind, value):
    value = struct.pack("=I", value) if isinstance(value, int) else value
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def link(index, name, kind="", **attributes):
    named = {"link": LINK, "mtu": MTU, "gso": GSO_MAX_SIZE, "tso": TSO_MAX_SIZE}
    body = struct.pack("=BxHiII", 0, 1, index, 1, 0) + attribute(IFNAME, name.encode() + b"\0")
    body += attribute(LINKINFO, attribute(1, kind.encode() + b"\0"))
    body += b"".join(attribute(named[each], value) for each, value in attributes.items())
    return struct.pack("=IHHII", 16 + len(body), 16, 0, 1, 0) + body


class Kernel:
    """Lists these links, and nothing on them; asked for one, it knows the master alone."""

    def __init__(self, *links):
        self.links = links

    def dump(self, _request, message_type, _most):
        return Listing(list(self.links) if message_type == RTM_GETLINK else [])

    def ask(self, request, _message_type):
        if request["index"] != MASTER:
            raise NetlinkError(errno.ENODEV, "No such device")
        return link(MASTER, "eno1", gso=ALLOWED)


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
    node = Kernel()
    monkeypatch.setattr(observe.Netlink, "here", lambda: nullcontext(node))
    (held,) = observe_netns(Kernel(told)).links
    assert (held.link.gso_max_bytes, held.link.tso_max_bytes) == (25_000, allowed)
