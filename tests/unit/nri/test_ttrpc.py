"""ttRPC's messages."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.nri.errors import ProtocolError
from reconciler.nri.ttrpc import MAX_MESSAGE_BYTES, Assembler, Message, Request, Response

messages = st.lists(st.builds(Message, st.integers(0, 2**32 - 1), st.integers(0, 255), st.binary()))


@given(messages, st.integers(1, 40))
def test_messages_survive_a_round_trip_however_they_are_cut(sent: list[Message], step: int) -> None:
    data = b"".join(message.encode() for message in sent)
    assembler = Assembler()
    received = []
    for start in range(0, len(data), step):
        received += assembler.feed(data[start : start + step])
    assert received == sent


@given(st.builds(Request, st.text(), st.text(), st.binary(), st.integers(-(2**63), 2**63 - 1)))
def test_a_request_survives_a_round_trip(request_: Request) -> None:
    assert Request.decode(request_.encode()) == request_


@given(st.binary(), st.integers(1, 16), st.text())
def test_a_response_survives_a_round_trip(payload: bytes, code: int, message: str) -> None:
    for response in (Response(payload), Response(code=code, message=message)):
        assert Response.decode(response.encode()) == response


def test_an_answer_that_all_is_well_has_no_status_and_no_payload() -> None:
    assert Response().encode() == b""


def test_the_header_is_length_stream_type_and_flags() -> None:
    assert Message(3, 2, b"ab").encode() == bytes.fromhex("00000002 00000003 02 00") + b"ab"


def test_a_message_over_four_mebibytes_is_neither_sent_nor_waited_for() -> None:
    with pytest.raises(ValueError, match="4194305 bytes"):
        Message(1, 2, bytes(MAX_MESSAGE_BYTES + 1)).encode()
    with pytest.raises(ProtocolError, match="ttRPC: a message of 4194305 bytes"):
        Assembler().feed(struct.pack(">IIBB", MAX_MESSAGE_BYTES + 1, 1, 1, 0))


def test_a_message_of_four_mebibytes_is_read() -> None:
    message = Message(1, 1, bytes(MAX_MESSAGE_BYTES))
    assert Assembler().feed(message.encode()) == [message]
