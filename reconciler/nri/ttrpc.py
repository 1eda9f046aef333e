"""ttRPC: requests and responses over a byte stream, each with a header of ten bytes.

The header is the payload's length and the stream's number, both 32-bit big-endian, the message's type and its flags.
Only unary calls are here: NRI has no others. Source: containerd/ttrpc v1.2.9, PROTOCOL.md, channel.go, request.proto.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from reconciler.nri.errors import ProtocolError
from reconciler.nri.protobuf import Fields, blob_field, integer_field, message_field, text_field

MAX_MESSAGE_BYTES: Final = 4 * 2**20
"""messageLengthMax in channel.go, the header not counted."""

_HEADER: Final = struct.Struct(">IIBB")


class MessageType(IntEnum):
    """Data messages (3) belong to streaming calls, and are ignored, as are types yet unknown."""

    REQUEST = 1
    RESPONSE = 2


class Code(IntEnum):
    """Status codes of gRPC that this side sends or expects (google.golang.org/grpc/codes)."""

    OK = 0
    UNIMPLEMENTED = 12


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `type` is a number on the wire, so that an unknown one can be skipped."""

    stream: int
    type: int
    payload: bytes

    def encode(self) -> bytes:
        """Header and payload. Raises ValueError when the payload is larger than the other side takes."""
        if len(self.payload) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a ttRPC message of {len(self.payload)} bytes: at most {MAX_MESSAGE_BYTES} can be sent")
        return _HEADER.pack(len(self.payload), self.stream, self.type, 0) + self.payload


@dataclass(frozen=True, slots=True)
class Request:
    """A call. `timeout_ns` is how long the caller waits from sending on; 0: for ever, negative: no longer."""

    service: str
    method: str
    payload: bytes = b""
    timeout_ns: int = 0

    def encode(self) -> bytes:
        """ttrpc.Request."""
        return (
            text_field(1, self.service)
            + text_field(2, self.method)
            + blob_field(3, self.payload)
            + integer_field(4, self.timeout_ns)
        )

    @classmethod
    def decode(cls, data: bytes) -> "Request":
        """Raises ProtocolError."""
        fields = Fields(data)
        return cls(fields.text(1), fields.text(2), fields.blob(3), fields.integer(4))


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: a payload with code OK, or an error's code and the message for people."""

    payload: bytes = b""
    code: int = Code.OK
    message: str = ""

    def encode(self) -> bytes:
        """ttrpc.Response; its status is google.rpc.Status."""
        status = integer_field(1, self.code) + text_field(2, self.message)
        return (message_field(1, status) if self.code else b"") + blob_field(2, self.payload)

    @classmethod
    def decode(cls, data: bytes) -> "Response":
        """Raises ProtocolError."""
        fields = Fields(data)
        status = Fields(fields.message(1))
        return cls(fields.blob(2), status.integer(1), status.text(2))


class Assembler:
    """Whole messages out of one connection's pieces. It holds at most one message that is not yet whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages completed by now. Raises ProtocolError as soon as a header's length is above the maximum."""
        self._buffer += data
        messages: list[Message] = []
        while len(self._buffer) >= _HEADER.size:
            length, stream, kind, _flags = _HEADER.unpack_from(self._buffer)
            if length > MAX_MESSAGE_BYTES:
                raise ProtocolError(f"ttRPC: a message of {length} bytes, more than {MAX_MESSAGE_BYTES}")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            messages.append(Message(stream, kind, bytes(self._buffer[_HEADER.size : end])))
            del self._buffer[:end]
        return messages
