"""Protocol Buffers on the wire."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.nri.errors import ProtocolError
from reconciler.nri.protobuf import (
    Fields,
    blob_field,
    integer_field,
    message_field,
    scan,
    signed,
    text_field,
)
from tests.unit.nri.runtime_side import text_map_field

numbers = st.integers(1, 2**29 - 1)


@given(numbers, st.integers(-(2**63), 2**63 - 1))
def test_an_integer_survives_a_round_trip(number: int, value: int) -> None:
    assert Fields(integer_field(number, value)).integer(number) == value


@given(numbers, st.text())
def test_a_string_survives_a_round_trip(number: int, value: str) -> None:
    assert Fields(text_field(number, value)).text(number) == value


@given(numbers, st.lists(st.binary()))
def test_a_repeated_field_survives_a_round_trip_with_its_empty_items(number: int, values: list[bytes]) -> None:
    assert Fields(b"".join(message_field(number, value) for value in values)).each(number) == values


@given(numbers, st.dictionaries(st.text(), st.text()))
def test_a_map_survives_a_round_trip(number: int, items: dict[str, str]) -> None:
    assert Fields(text_map_field(number, items)).text_map(number, items.keys()) == items


# Whoever writes fields in another order, or twice, means the same; so do numbers that are longer than they need be.
entry_parts = st.lists(
    st.sampled_from([text_field(1, "key"), text_field(1, "other"), b"\x8a\x00\x83\x00key", message_field(1, b"")])
    | st.builds(text_field, st.integers(2, 3), st.sampled_from(["", "key", "value"])),
    max_size=5,
).map(b"".join)


@given(st.lists(entry_parts, max_size=5))
def test_of_a_map_the_wanted_keys_are_read_however_they_are_written(entries: list[bytes]) -> None:
    everything = [(Fields(entry).text(1), Fields(entry).text(2)) for entry in entries]
    fields = Fields(b"".join(message_field(5, entry) for entry in entries))
    assert fields.text_map(5, ["key", "?"]) == {key: value for key, value in everything if key == "key"}


def test_what_is_malformed_in_a_map_matters_only_where_it_may_be_wanted() -> None:
    fields = Fields(message_field(5, b"\xff") + message_field(5, b"\x0a\x01\xff") + message_field(5, b"key\xff"))
    assert fields.text_map(5, ["wanted"]) == {}
    with pytest.raises(ProtocolError):
        fields.text_map(5, ["key"])


@given(st.binary())
def test_garbage_is_a_message_or_a_protocol_error(data: bytes) -> None:
    try:
        fields = Fields(data)
        for number in range(1, 16):
            fields.text(number)
            fields.text_map(number, ["", "a"])
    except ProtocolError:
        pass


def test_a_known_encoding_reads_as_the_documentation_says() -> None:
    assert list(scan(bytes.fromhex("089601 120774657374696e67"))) == [(1, 150), (2, b"testing")]


def test_defaults_are_not_sent_but_an_empty_message_is() -> None:
    assert integer_field(1, 0) == text_field(1, "") == blob_field(1, b"") == b""
    assert message_field(1, b"") == b"\x0a\x00"


def test_what_is_absent_reads_as_its_default() -> None:
    fields = Fields(b"")
    assert (fields.integer(1), fields.text(1), fields.blob(1), fields.message(1)) == (0, "", b"", b"")


def test_the_last_of_a_scalar_counts_and_messages_are_merged() -> None:
    data = text_field(1, "a") + text_field(1, "b") + integer_field(2, 3) + integer_field(2, 4)
    fields = Fields(data)
    assert (fields.text(1), fields.integer(2), fields.blob(1), fields.message(1)) == ("b", 4, b"b", b"ab")


def test_a_field_of_another_wire_type_is_unknown_and_not_an_error() -> None:
    fields = Fields(integer_field(1, 5) + text_field(2, "five"))
    assert (fields.text(1), fields.integer(2)) == ("", 0)


def test_fixed_width_fields_are_skipped() -> None:
    data = b"\x09" + bytes(8) + b"\x15" + bytes(4) + integer_field(3, 7)
    assert list(scan(data)) == [(3, 7)]


def test_negative_numbers_are_twos_complement() -> None:
    assert signed(2**64 - 1) == -1
    assert signed(2**63 - 1) == 2**63 - 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x80", "within a varint"),
        (b"\x08", "within a varint"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "longer than 64 bits"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "longer than 64 bits"),
        (b"\x00\x01", "field number 0"),
        (b"\x82\x80\x80\x80\x10\x00", "field number 536870912"),
        (b"\x0b", "wire type 3"),
        (b"\x0a\x05abc", "says 5 bytes where 3 are left"),
        (b"\x0a", "within a varint"),
        (b"\x09\x00", "says 8 bytes where 1 are left"),
        (b"\x0a" + b"\xff" * 9 + b"\x01", "are left"),
    ],
)
def test_malformed_bytes_are_told_as_such(data: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        Fields(data)


def test_a_string_that_is_not_utf_8_is_an_error_only_where_it_is_read() -> None:
    fields = Fields(b"\x0a\x01\xff")
    assert fields.blob(1) == b"\xff"
    with pytest.raises(ProtocolError, match="field 1 is not UTF-8"):
        fields.text(1)
