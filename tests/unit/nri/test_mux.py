"""Frames of the multiplexer."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.nri.errors import ProtocolError
from reconciler.nri.mux import MAX_RECEIVED_PAYLOAD_BYTES, MAX_SENT_PAYLOAD_BYTES, Demultiplexer, frames

streams = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary()))


def joined(pieces: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Neighbouring pieces of one connection as one."""
    result: list[tuple[int, bytes]] = []
    for connection, piece in pieces:
        if result and result[-1][0] == connection:
            result[-1] = (connection, result[-1][1] + piece)
        else:
            result.append((connection, piece))
    return result


@given(streams, st.integers(1, 40))
def test_what_is_framed_comes_out_by_connection_however_it_is_cut(sent: list[tuple[int, bytes]], step: int) -> None:
    data = b"".join(frames(connection, payload) for connection, payload in sent)
    demultiplexer = Demultiplexer()
    pieces = []
    for start in range(0, len(data), step):
        pieces += demultiplexer.feed(data[start : start + step])
    assert joined(pieces) == joined([each for each in sent if each[1]])


def test_a_large_message_is_cut_into_frames_that_the_other_side_can_read() -> None:
    data = frames(2, bytes(2 * MAX_SENT_PAYLOAD_BYTES + 1))
    lengths = []
    while data:
        connection, length = struct.unpack(">II", data[:8])
        assert connection == 2
        lengths.append(length)
        data = data[8 + length :]
    assert lengths == [4096, 4096, 1]


def test_an_empty_frame_says_nothing() -> None:
    assert Demultiplexer().feed(struct.pack(">II", 1, 0) + frames(2, b"x")) == [(2, b"x")]


def test_the_largest_frame_of_a_runtime_is_taken_and_a_larger_one_is_an_error() -> None:
    Demultiplexer().feed(struct.pack(">II", 1, MAX_RECEIVED_PAYLOAD_BYTES))
    with pytest.raises(ProtocolError, match="mux: a frame of 4194315 bytes"):
        Demultiplexer().feed(struct.pack(">II", 1, MAX_RECEIVED_PAYLOAD_BYTES + 1))
