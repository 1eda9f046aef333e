"""rtnetlink, synchronously, over one raw socket: requests with acknowledgement, and dumps.

pyroute2's message classes encode and decode; its own sockets are not used, since they fork to enter a network namespace
and run an event loop of their own. The size of an answer and the wait for it are bounded; the kernel's own work on a
request, under rtnl, within the send call, is not: `kernel_executor.py` reports if it hangs.
"""

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from reconciler.kernel import netns
from reconciler.kernel.errors import NetlinkError
from reconciler.kernel.raw import raw_attributes

RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_NEWQDISC: Final = 36
RTM_DELQDISC: Final = 37
RTM_GETQDISC: Final = 38
RTM_NEWTFILTER: Final = 44
RTM_DELTFILTER: Final = 45
RTM_GETTFILTER: Final = 46
RTM_NEWNSID: Final = 88
RTM_GETNSID: Final = 90
NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP: Final = 0x300
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
_NLM_F_CAPPED: Final = 0x100
_NLM_F_ACK_TLVS: Final = 0x200
_NLM_F_DUMP_INTR: Final = 0x10
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_KERNEL: Final = 0  # as a port id (netlink(7))
SOL_NETLINK: Final = 270
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11
_NLMSGERR_ATTR_MSG: Final = 1

_HEADER: Final = struct.Struct("=IHHII")
_RECEIVE_BYTES: Final = 3 << 15
"""More than the longest message, and below what malloc maps anew each time (128 KiB), for three system calls."""
_LARGEST_ANSWER_BYTES: Final = 1 << 23
_OBJECT_BYTES: Final = 1 << 11
"""Few links, qdiscs or filters are longer; of a list in which they are longer on average, the rest is not read."""
_TIMEOUT_SECONDS: Final = 2
_TIMEOUT: Final = struct.pack("ll", _TIMEOUT_SECONDS, 0)  # struct timeval
_DUMP_TRIES: Final = 5


class Listing(NamedTuple):
    """What the kernel listed, or as much of it as was read.

    `before_too_long`: the kernel could list no more, as the next object is too long for it.
    """

    messages: list[bytes]
    are_all: bool = True
    before_too_long: bool = False


class Netlink:
    """One rtnetlink socket, for as long as a `with` lasts."""

    def __init__(self, open_one: Callable[[], socket.socket]) -> None:
        self._open_one = open_one
        self._socket = _prepared(open_one())
        self._has_rest = False
        """Whether the socket still holds the unread rest of a list: the next request then needs a new socket."""
        self._sequence = 0
        self.link_indexes: dict[str, int] = {}
        """Indexes of the links by name, from the last list of links (`reconciler.kernel.observe`)."""

    @classmethod
    def inside(cls, netns_descriptor: int) -> Self:
        """In the network namespace of a descriptor, which must stay open as long as this. Raises ShapingError."""
        return cls(lambda: netns.open_netlink(netns_descriptor))

    @classmethod
    def here(cls) -> Self:
        """In the network namespace of this process. Raises ShapingError."""
        return cls(netns.open_netlink_here)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def request(self, message: Any, message_type: int, flags: int = 0) -> None:
        """Send a request and wait for its acknowledgement. Raises NetlinkError with the kernel's reason."""
        self._send(self._encoded(message, message_type, NLM_F_REQUEST | NLM_F_ACK | flags))
        for _ in self._answers(self._sequence):
            pass

    def request_all(self, *requests: tuple[Any, int, int]) -> list[NetlinkError | None]:
        """Send requests (message, its type, flags) in one system call, so that all are done even if we die meanwhile.

        Returns the result of each. Raises NetlinkError when the kernel gives none.
        """
        wanted = [self._encoded(message, kind, NLM_F_REQUEST | NLM_F_ACK | flags) for message, kind, flags in requests]
        self._send(b"".join(wanted))
        ends: list[NetlinkError | None] = []
        for sequence in range(self._sequence - len(wanted) + 1, self._sequence + 1):
            try:
                for _ in self._answers(sequence):
                    pass
            except _RefusedError as error:
                ends.append(error)
            else:
                ends.append(None)
        return ends

    def ask(self, message: Any, message_type: int) -> bytes | None:
        """Send a request that one message answers. Raises NetlinkError."""
        self._send(self._encoded(message, message_type, NLM_F_REQUEST))
        return next((data for _, data in self._answers(self._sequence) if data), None)

    def dump(self, message: Any, message_type: int, most: int) -> Listing:
        """The objects that the kernel lists. Raises NetlinkError.

        At most `most` are read, and no more bytes than so many usually have. Objects that changed during the listing
        may be missing or old; the kernel flags this (NLM_F_DUMP_INTR), and all is listed again, within the same bytes.
        """
        left = min(most * _OBJECT_BYTES, _LARGEST_ANSWER_BYTES)
        for _ in range(_DUMP_TRIES):
            self._send(self._encoded(message, message_type, NLM_F_REQUEST | NLM_F_DUMP))
            flags, listed = 0, list[bytes]()
            self._has_rest = True
            try:
                for more, data in self._answers(self._sequence):
                    flags |= more
                    left -= len(data)
                    if data and (len(listed) == most or left < 0):
                        return Listing(listed, are_all=False)
                    listed += [data] if data else []
            except _RefusedError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                return Listing(listed, are_all=False, before_too_long=True)
            self._has_rest = False
            if not flags & _NLM_F_DUMP_INTR:
                return Listing(listed)
        raise NetlinkError(errno.EBUSY, f"what is listed changed each of {_DUMP_TRIES} times")

    def _encoded(self, message: Any, message_type: int, flags: int) -> bytes:
        self._sequence += 1
        message["header"]["type"] = message_type
        message["header"]["flags"] = flags
        message["header"]["sequence_number"] = self._sequence
        message.encode()
        return bytes(message.data)

    def _send(self, data: bytes) -> None:
        if self._has_rest:
            self._socket.close()
            self._socket, self._has_rest = _prepared(self._open_one()), False
        try:
            self._socket.send(data)
        except OSError as error:  # ENOBUFS, ENOMEM: no memory for the message
            raise _silence(error) from error

    def _answers(self, awaited: int) -> Iterator[tuple[int, bytes]]:
        """The messages that answer a request, with their flags; for the end of a dump only the flags."""
        received = 0
        while received < _LARGEST_ANSWER_BYTES:
            try:
                data, (sender, _) = self._socket.recvfrom(_RECEIVE_BYTES)
            except OSError as error:
                raise _silence(error) from error
            received += len(data)
            if sender != _KERNEL:  # a process of the Pod may also send to this socket, and guess the sequence number
                continue
            for message_type, flags, sequence, message in split(data):
                if sequence != awaited:
                    continue
                if message_type in {_NLMSG_ERROR, _NLMSG_DONE}:
                    _raise_for(message, flags)
                    yield flags & _NLM_F_DUMP_INTR, b""
                    return
                yield flags, message
        raise NetlinkError(errno.EMSGSIZE, f"the kernel's answer is longer than {_LARGEST_ANSWER_BYTES} bytes")


class _RefusedError(NetlinkError):
    """The kernel refused the request."""


def _prepared(opened: socket.socket) -> socket.socket:
    # Not settimeout: Python would poll before each message that it sends or receives.
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
    opened.setsockopt(SOL_NETLINK, _NETLINK_EXT_ACK, 1)
    opened.setsockopt(SOL_NETLINK, _NETLINK_CAP_ACK, 1)
    return opened


def _silence(error: OSError) -> NetlinkError:
    """There is no answer: it did not come in time, or the socket could not hold it (ENOBUFS)."""
    if isinstance(error, BlockingIOError):
        return NetlinkError(errno.ETIMEDOUT, f"the kernel did not answer in {_TIMEOUT_SECONDS} s")
    return NetlinkError(error.errno or errno.EIO, error.strerror or str(error))


def split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The messages of one datagram: type, flags, sequence number, and the message with its header (netlink(7))."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, message_type, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            return
        yield message_type, flags, sequence, data[offset : offset + length]
        offset += (length + 3) & ~3


def _raise_for(message: bytes, flags: int) -> None:
    """Raise NetlinkError when an NLMSG_ERROR or NLMSG_DONE says that something failed."""
    body = message[_HEADER.size :]
    code = -struct.unpack_from("=i", body)[0] if len(body) >= struct.calcsize("=i") else 0
    if code > 0:
        reason = _extended_reason(body, flags)
        raise _RefusedError(code, os.strerror(code) + (f" ({reason})" if reason else ""))


def _extended_reason(body: bytes, flags: int) -> str:
    """The text of an extended acknowledgement (kernel commit 2d4bc93368f5), or nothing."""
    if not flags & _NLM_F_ACK_TLVS:
        return ""
    offset = 4 + _HEADER.size
    if not flags & _NLM_F_CAPPED and len(body) >= offset:
        offset = 4 + int.from_bytes(body[4:8], sys.byteorder)
    return raw_attributes(body, offset).get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")
