"""Monitors the Pods' network namespaces for changes by netlink, on one socket in the node's own.

NETLINK_LISTEN_ALL_NSID (kernel commit 59324cf35aba; needs CAP_NET_BROADCAST) brings the events of every namespace that
has an id in ours; `watch` gives it one. No socket stays in a Pod's netns, as it would keep the netns alive.
Deleting a clsact sends RTM_DELQDISC and nothing for its filters; writes to maps send no notification.
"""

import errno
import logging
import socket
import struct
from dataclasses import dataclass
from typing import Final

from pyroute2.netlink.rtnl.nsidmsg import nsidmsg

from reconciler.kernel import netns
from reconciler.kernel.errors import NetlinkError, ShapingError
from reconciler.kernel.netlink import RTM_DELLINK, RTM_GETNSID, RTM_NEWLINK, RTM_NEWNSID, SOL_NETLINK, Netlink, split
from reconciler.kernel.observe import dump_links
from reconciler.kernel.raw import IFLA_MTU, LINK_ATTRIBUTES, link_index_of, link_is_up, number, raw_attributes

logger = logging.getLogger(__name__)
_NETLINK_LISTEN_ALL_NSID: Final = 8
_SO_RCVBUFFORCE: Final = 33
_RTMGRP_LINK: Final = 0x1
_RTMGRP_TC: Final = 0x8
_ANY_NSID: Final = 0xFFFFFFFF
_RECEIVE_BYTES: Final = 1 << 16
_BUFFER_BYTES: Final = 1 << 22
_MOST_EVENTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Changes:
    """Network namespaces in which a link, qdisc or filter changed.

    `overrun`: events were lost. `mtu_changed`: an interface of the node that is up has another MTU, and so have all its
    ipvlan interfaces; the kernel sends no notification for those in their network namespaces (ipvlan_adjust_mtu).
    """

    netns_paths: frozenset[str]
    overrun: bool = False
    mtu_changed: bool = False

    @property
    def may_be_anywhere(self) -> bool:
        """Whether all network namespaces are to be looked at."""
        return self.overrun or self.mtu_changed


class Monitor:
    """One socket: wait until `fileno` is readable, then `read`. Close it."""

    def __init__(self) -> None:
        """Raises ShapingError when the kernel or the capabilities do not allow it."""
        self._paths: dict[int, str] = {}
        self._mtus: dict[int, int | None] = {}
        """The MTUs of the node's own interfaces, by index: at the start, or when they were up last."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
            self._socket.setsockopt(SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID, 1)
            self._socket.bind((0, _RTMGRP_LINK | _RTMGRP_TC))
        except OSError as error:
            self._socket.close()
            message = f"cannot listen to changes in all network namespaces: {error.strerror}; give CAP_NET_BROADCAST"
            raise ShapingError(message) from error
        self._learn_mtus()

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def watch(self, netns_path: str) -> None:
        """Receive changes in this network namespace. Raises NetnsGoneError, HostNetnsError, ShapingError."""
        with netns.opened(netns_path) as descriptor, Netlink.here() as netlink:
            try:
                self._paths[_nsid(netlink, descriptor)] = netns_path
            except NetlinkError as error:
                raise ShapingError(f"cannot give {netns_path} an id to hear from it: {error.text}") from error

    def unwatch(self, netns_path: str) -> None:
        """Forget a network namespace, whether it was watched or not."""
        for nsid in [nsid for nsid, path in self._paths.items() if path == netns_path]:
            del self._paths[nsid]

    def read(self) -> Changes:
        """What changed since the last call. Never waits."""
        changed: set[str] = set()
        overrun = mtu_changed = False
        for _ in range(_MOST_EVENTS):
            try:
                data, notes, _, _ = self._socket.recvmsg(_RECEIVE_BYTES, socket.CMSG_SPACE(4))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                overrun = True
                continue
            nsids = _nsids(notes)
            changed |= {self._paths[nsid] for nsid in nsids if nsid in self._paths}
            for message_type, _, _, message in split(data) if not nsids else ():
                mtu_changed |= self._tells_another_mtu(message_type, message)
        return Changes(frozenset(changed), overrun, mtu_changed)

    def _learn_mtus(self) -> None:
        """Learn the MTUs of existing interfaces. The first notification for an unknown one shows no change."""
        try:
            with Netlink.here() as netlink:
                self._mtus = {link_index_of(message): _mtu(message) for message in dump_links(netlink)}
        except ShapingError as error:
            logger.warning("another MTU of an interface of this node may be found late: %s", error)

    def _tells_another_mtu(self, message_type: int, message: bytes) -> bool:
        """Whether a notification of the node's own netns shows a change of an interface's MTU."""
        index, mtu = link_index_of(message), _mtu(message)
        if message_type == RTM_DELLINK:
            self._mtus.pop(index, None)
        # A CNI plugin may make a veth, set its MTU, and then set it up: of no concern to Pods, as nothing is on it yet.
        if message_type != RTM_NEWLINK or mtu is None or not link_is_up(message):
            return False
        before, self._mtus[index] = self._mtus.get(index), mtu
        return before not in {None, mtu}


def _mtu(message: bytes) -> int | None:
    """The MTU of a link. Not every notification has it: those that are specific to wireless links do not."""
    return number(raw_attributes(message, LINK_ATTRIBUTES).get(IFLA_MTU))


def _nsids(notes: list[tuple[int, int, bytes]]) -> list[int]:
    """The id of the namespace that a message came from; empty for our own."""
    return [
        struct.unpack("=i", data[:4])[0]
        for level, kind, data in notes
        if (level, kind) == (SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID) and len(data) >= struct.calcsize("=i")
    ]


def _nsid(netlink: Netlink, descriptor: int) -> int:
    """The id that the network namespace has in ours; one is assigned if it has none."""
    message = nsidmsg()
    message["attrs"] = [("NETNSA_NSID", _ANY_NSID), ("NETNSA_FD", descriptor)]
    try:
        netlink.request(message, RTM_NEWNSID)
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
    question = nsidmsg()
    question["attrs"] = [("NETNSA_FD", descriptor)]
    answer = nsidmsg(netlink.ask(question, RTM_GETNSID))
    answer.decode()
    nsid: int = answer.get_attr("NETNSA_NSID")
    return nsid
