"""Messages of links as the kernel writes them, and a netlink that lists them."""

import errno
import struct

from reconciler.kernel.errors import NetlinkError
from reconciler.kernel.netlink import RTM_GETLINK, Listing
from reconciler.kernel.raw import link_index_of

IFNAME, LINKINFO = 3, 18
NUMBERS = {"mtu": 4, "link": 5, "stats": 23, "gso": 41, "tso": 59}


def attribute(kind, value):
    value = struct.pack("=I", value) if isinstance(value, int) else value
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def link(index, name, kind="", *, message_type=16, is_up=True, **attributes):
    """The message of a link; `attributes` are those of NUMBERS."""
    body = struct.pack("=BxHiII", 0, 1, index, is_up, 0) + attribute(IFNAME, name.encode() + b"\0")
    body += attribute(LINKINFO, attribute(1, kind.encode() + b"\0"))
    body += b"".join(attribute(NUMBERS[each], value) for each, value in attributes.items())
    return struct.pack("=IHHII", 16 + len(body), message_type, 0, 1, 0) + body


class Kernel:
    """Lists these links, and nothing on them."""

    def __init__(self, *links):
        self.links = links

    def dump(self, _request, message_type, _most):
        return Listing(list(self.links) if message_type == RTM_GETLINK else [])

    def ask(self, request, _message_type):
        for message in self.links:
            if link_index_of(message) == request["index"]:
                return message
        raise NetlinkError(errno.ENODEV, "No such device")
