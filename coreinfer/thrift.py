"""Thrift's compact protocol, as Parquet uses it for what it says of itself, read without trust.

A struct's field is a byte of (step of its id, type), then its value; integers are zigzag varints. A reader that is
looser or stricter than the library that reads after it would look at other claims than the library believes, so
whatever two readers could take for two things is refused: a field that comes twice, an id or a number out of its range.
"""

from typing import Any

STOP, TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, STRUCT = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12
BITS = {I16: 16, I32: 32, I64: 64}
DEEPEST = 8

Fields = dict[int, tuple[int, Any]]  # id -> (type, value); a list is (type, items)


def struct(raw: bytes, at: int = 0, depth: int = 0) -> tuple[Fields, int]:
    """(fields, where it ends) of the struct that begins at ``at``.

    Raises:
        ValueError: it is none; LookupError: it is cut short.
    """
    out, last = Fields(), 0
    while (head := raw[at]) != STOP:
        at += 1
        if head >> 4:
            last += head >> 4
        else:
            last, at = _integer(raw, at, 16)
        if last in out or not 0 < last < 1 << 15 or depth > DEEPEST:
            raise ValueError(f"field {last} stands twice, or is none, or lies too deep")
        kind = head & 15
        if kind in (TRUE, FALSE):
            out[last] = kind, kind == TRUE
        else:
            value, at = _value(raw, at, kind, depth)
            out[last] = kind, value
    return out, at + 1


def field(fields: Fields, number: int, kind: int) -> Any:
    """A field that must be there and of this type.

    Raises:
        ValueError: it is not.
    """
    found, value = fields.get(number, (STOP, None))
    if found != kind:
        raise ValueError(f"field {number} is missing, or of type {found}, not {kind}")
    return value


def structs(fields: Fields, number: int) -> list[Fields]:
    """A field that must be a list of structs."""
    kind, items = field(fields, number, LIST)
    if kind != STRUCT:
        raise ValueError(f"field {number} is a list of type {kind}")
    return list(items)


def _value(raw: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in BITS:
        return _integer(raw, at, BITS[kind])
    if kind == STRUCT:
        return struct(raw, at, depth + 1)
    if kind == BINARY:
        length, at = _varint(raw, at)
        if at + length > len(raw):
            raise LookupError(f"{length} bytes of text")
        return raw[at : at + length], at + length
    if kind in (LIST, SET):
        return _items(raw, at, depth)
    if kind in (BYTE, DOUBLE):
        return None, at + (1 if kind == BYTE else 8)
    raise ValueError(f"there is a field of type {kind}")


def _items(raw: bytes, at: int, depth: int) -> tuple[tuple[int, list[Any]], int]:
    """A list; each of its items takes a byte at least, so that it cannot claim more than there is."""
    kind, count, at = raw[at] & 15, raw[at] >> 4, at + 1
    if count == 15:
        count, at = _varint(raw, at)
    if count > len(raw) - at:
        raise LookupError(f"{count} items")
    out = list[Any]()
    for _ in range(count):
        item, at = (None, at + 1) if kind in (TRUE, FALSE) else _value(raw, at, kind, depth)
        out.append(item)
    return (kind, out), at


def _integer(raw: bytes, at: int, bits: int) -> tuple[int, int]:
    value, at = _varint(raw, at)
    if value >> bits:
        raise ValueError(f"a number has more than {bits} bits")
    return (value >> 1) ^ -(value & 1), at


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number does not end")
