"""The part of the Protocol Buffers wire format that NRI's messages use.

Source: "Encoding" in the Protocol Buffers documentation. NRI's schema (containerd/nri v0.12.3, pkg/api/api.proto) uses
varints and length-delimited fields; fixed-width fields are skipped, and groups, which proto3 does not have, are an
error. Scalars that hold their default are not sent, as in proto3.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Final

from reconciler.nri.errors import ProtocolError

_MASK_64: Final = 2**64 - 1
_SIGN_64: Final = 2**63
_LAST_BYTE_SHIFT: Final = 63
_MAX_FIELD_NUMBER: Final = 2**29 - 1
_MORE: Final = 0x80
"""The top bit of a varint's byte: others follow."""

# Wire types. No enum: its members take longer to compare, and there may be a hundred thousand fields.
_VARINT: Final = 0
_LENGTH_DELIMITED: Final = 2
_FIXED_BYTES: Final = {1: 8, 5: 4}


def scan(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of one message in the order they stand: number, and an int (varint) or bytes (length-delimited).

    An int is unsigned, 64 bits: see `signed`. Raises ProtocolError where the bytes are no message.
    """
    position, size = 0, len(data)
    while position < size:
        tag, position = (data[position], position + 1) if data[position] < _MORE else _read_varint(data, position)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number <= _MAX_FIELD_NUMBER:
            raise ProtocolError(f"protobuf: field number {number} is out of range")
        if wire == _VARINT:
            value, position = _read_varint(data, position)
            yield number, value
            continue
        if wire == _LENGTH_DELIMITED:
            short = position < size and data[position] < _MORE
            length, position = (data[position], position + 1) if short else _read_varint(data, position)
        elif wire in _FIXED_BYTES:
            length = _FIXED_BYTES[wire]
        else:
            raise ProtocolError(f"protobuf: field {number} has wire type {wire}, which proto3 does not use")
        end = position + length
        if end > size:
            raise ProtocolError(f"protobuf: field {number} says {length} bytes where {size - position} are left")
        if wire == _LENGTH_DELIMITED:
            yield number, data[position:end]
        position = end


def signed(value: int) -> int:
    """An int64 or int32 from its varint: two's complement in 64 bits."""
    return value - 2**64 if value & _SIGN_64 else value


class Fields:
    """One message's known fields, read by number; a field of another wire type counts as unknown and is skipped."""

    def __init__(self, data: bytes) -> None:
        """Raises ProtocolError where the bytes are no message."""
        self._values: defaultdict[int, list[int | bytes]] = defaultdict(list)
        for number, value in scan(data):
            self._values[number].append(value)

    def integer(self, number: int) -> int:
        """The last varint of that number, signed; 0 without one."""
        varints = [value for value in self._values.get(number, ()) if isinstance(value, int)]
        return signed(varints[-1]) if varints else 0

    def each(self, number: int) -> list[bytes]:
        """All length-delimited values of that number: a repeated field."""
        return [value for value in self._values.get(number, ()) if isinstance(value, bytes)]

    def text(self, number: int) -> str:
        """The last string of that number, "" without one. Raises ProtocolError unless it is UTF-8."""
        values = self.each(number)
        try:
            return values[-1].decode() if values else ""
        except UnicodeDecodeError as error:
            raise ProtocolError(f"protobuf: string field {number} is not UTF-8: {error.reason}") from error

    def blob(self, number: int) -> bytes:
        """The last bytes of that number, b"" without one."""
        values = self.each(number)
        return values[-1] if values else b""

    def message(self, number: int) -> bytes:
        """An embedded message. Its repetitions are merged, by joining their encodings."""
        return b"".join(self.each(number))

    def text_map(self, number: int, keys: Collection[str]) -> dict[str, str]:
        """A map<string, string>'s values of these keys: entries with key and value as fields 1 and 2; the last counts.

        An entry is read only if it contains a key's bytes, which any encoding of it does. Among tens of thousands of
        entries, skipping the others costs next to nothing; they may be malformed.
        """
        holds_one = re.compile(b"|".join(re.escape(key.encode()) for key in keys)).search
        entries = map(Fields, filter(holds_one, self.each(number)))
        return {entry.text(1): entry.text(2) for entry in entries if entry.text(1) in keys}


def integer_field(number: int, value: int) -> bytes:
    """A varint field, from -2**63 to 2**64 - 1; nothing for 0."""
    return _varint(number << 3 | _VARINT) + _varint(value & _MASK_64) if value else b""


def text_field(number: int, value: str) -> bytes:
    """A string field; nothing for ""."""
    return blob_field(number, value.encode())


def blob_field(number: int, value: bytes) -> bytes:
    """A bytes field; nothing for b""."""
    return message_field(number, value) if value else b""


def message_field(number: int, value: bytes) -> bytes:
    """An embedded message, or an item of a repeated field: it is sent also when it is empty."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - the seven bits a byte of a varint carries
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, _LAST_BYTE_SHIFT + 1, 7):
        if position == len(data):
            raise ProtocolError("protobuf: the message ends within a varint")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < _MORE:
            if value > _MASK_64:
                break
            return value, position
    raise ProtocolError("protobuf: a varint is longer than 64 bits")
