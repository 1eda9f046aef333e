"""rtnetlink, synchronously, over one raw socket: requests with acknowledgement, and dumps.

pyroute2's message classes encode and decode; its own sockets are not used, since they fork to enter a network namespace
and run an event loop of their own. Everything is bounded: the size of an answer, and the time until it comes.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Self

from reconciler.kernel import netns
from reconciler.kernel.errors import NetlinkError

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP: Final = 0x300
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
_NLM_F_CAPPED: Final = 0x100
_NLM_F_ACK_TLVS: Final = 0x200
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_SOL_NETLINK: Final = 270
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11
_NLMSGERR_ATTR_MSG: Final = 1

_HEADER: Final = struct.Struct("=IHHII")
_RECEIVE_BYTES: Final = 1 << 18
_LARGEST_DUMP_BYTES: Final = 1 << 24
_TIMEOUT_SECONDS: Final = 2.0


class Netlink:
    """One rtnetlink socket, for as long as a `with` lasts."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._socket.settimeout(_TIMEOUT_SECONDS)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._sequence = 0
        self.link_indexes: dict[str, int] = {}
        """Indexes of the links by name, as the last list of links told (`reconciler.kernel.observe`)."""

    @classmethod
    def inside(cls, netns_descriptor: int) -> Self:
        """In the network namespace of a descriptor. Raises NetnsGoneError."""
        return cls(netns.open_netlink(netns_descriptor))

    @classmethod
    def here(cls) -> Self:
        """In the network namespace of this process."""
        return cls(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def request(self, message: Any, message_type: int, flags: int = 0) -> None:
        """Send a request and wait for its acknowledgement. Raises NetlinkError with the kernel's reason."""
        self._send(message, message_type, NLM_F_REQUEST | NLM_F_ACK | flags)
        for _ in self._answers():
            pass

    def ask(self, message: Any, message_type: int) -> Any:
        """Send a request that one message answers. Raises NetlinkError."""
        self._send(message, message_type, NLM_F_REQUEST | NLM_F_ACK)
        answer = None
        for data in self._answers():
            answer = type(message)(data)
            answer.decode()
        return answer

    def dump(self, message: Any, message_type: int) -> list[Any]:
        """All objects that the kernel lists, as messages of the class of `message`. Raises NetlinkError."""
        self._send(message, message_type, NLM_F_REQUEST | NLM_F_DUMP)
        listed = []
        for data in self._answers():
            decoded = type(message)(data)
            decoded.decode()
            listed.append(decoded)
        return listed

    def _send(self, message: Any, message_type: int, flags: int) -> None:
        self._sequence += 1
        message["header"]["type"] = message_type
        message["header"]["flags"] = flags
        message["header"]["sequence_number"] = self._sequence
        message.encode()
        self._socket.send(message.data)

    def _answers(self) -> Iterator[bytes]:
        """The messages that answer the last request, up to the acknowledgement or the end of the dump."""
        received = 0
        while received < _LARGEST_DUMP_BYTES:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except TimeoutError as error:
                raise NetlinkError(errno.ETIMEDOUT, f"the kernel did not answer in {_TIMEOUT_SECONDS:g} s") from error
            received += len(data)
            for message_type, flags, sequence, message in split(data):
                if sequence != self._sequence:
                    continue
                if message_type in {_NLMSG_ERROR, _NLMSG_DONE}:
                    _raise_for(message, flags)
                    return
                yield message
        raise NetlinkError(errno.EMSGSIZE, f"the kernel's answer is longer than {_LARGEST_DUMP_BYTES} bytes")


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
        raise NetlinkError(code, os.strerror(code) + (f" ({reason})" if reason else ""))


def _extended_reason(body: bytes, flags: int) -> str:
    """The text of an extended acknowledgement (kernel commit 2d4bc93368f5), or nothing."""
    if not flags & _NLM_F_ACK_TLVS:
        return ""
    offset = 4 + _HEADER.size
    if not flags & _NLM_F_CAPPED and len(body) >= offset:
        offset = 4 + int.from_bytes(body[4:8], "little")
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if length < 4:  # noqa: PLR2004 - the header of an attribute
            break
        if kind & 0x3FFF == _NLMSGERR_ATTR_MSG:
            return body[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += (length + 3) & ~3
    return ""
