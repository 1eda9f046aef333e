"""Several byte streams over one socket: how NRI runs two ttRPC connections, one for each direction of calls.

A frame is the connection's number and the payload's length, both 32-bit big-endian, and the payload. Opening a
connection sends nothing. Source: containerd/nri v0.12.3, pkg/net/multiplex/mux.go and ttrpc.go.
"""

import struct
from typing import Final

from reconciler.nri.errors import ProtocolError

PLUGIN_CONNECTION: Final = 1
"""The runtime's calls to the plugin, and the plugin's answers."""
RUNTIME_CONNECTION: Final = 2
"""The plugin's calls to the runtime, and the runtime's answers."""

MAX_SENT_PAYLOAD_BYTES: Final = 4096
"""The reader on the other side hands whole frames to a bufio.Reader of 4096 bytes (ttrpc v1.2.9, channel.go) and fails
with ENOMEM where one does not fit, although a frame may be larger by the format."""
MAX_RECEIVED_PAYLOAD_BYTES: Final = 10 + 4 * 2**20
"""The largest frame mux.go writes: a whole ttRPC message."""

_HEADER: Final = struct.Struct(">II")


def frames(connection: int, data: bytes) -> bytes:
    """`data` as it goes to the socket, cut into frames that the other side can read."""
    chunks = (data[start : start + MAX_SENT_PAYLOAD_BYTES] for start in range(0, len(data), MAX_SENT_PAYLOAD_BYTES))
    return b"".join(_HEADER.pack(connection, len(chunk)) + chunk for chunk in chunks)


class Demultiplexer:
    """Sorts what comes from the socket by connection. It holds no payload: bytes are handed on as they come."""

    def __init__(self) -> None:
        self._header = b""
        self._connection = 0
        self._payload_left = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Pieces of the connections' streams, as (connection, bytes), in the order they came.

        A piece is no message and no frame: it ends where the bytes at hand end. Raises ProtocolError for a frame larger
        than any that a runtime sends.
        """
        pieces: list[tuple[int, bytes]] = []
        position = 0
        while position < len(data):
            if self._payload_left:
                piece = data[position : position + self._payload_left]
                pieces.append((self._connection, piece))
                self._payload_left -= len(piece)
                position += len(piece)
                continue
            part = data[position : position + _HEADER.size - len(self._header)]
            self._header += part
            position += len(part)
            if len(self._header) == _HEADER.size:
                self._connection, self._payload_left = _HEADER.unpack(self._header)
                self._header = b""
                if self._payload_left > MAX_RECEIVED_PAYLOAD_BYTES:
                    raise ProtocolError(
                        f"mux: a frame of {self._payload_left} bytes, more than {MAX_RECEIVED_PAYLOAD_BYTES}"
                    )
        return pieces
