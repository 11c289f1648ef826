"""What the pages of a Parquet column claim, looked at before a library makes room for it.

A library believes a page's header: three bytes there make it set two gigabytes aside, or decode a run of a billion
equal values. So the headers are walked first. They are Thrift structs in its compact protocol: a field is a byte of
(step of its id, type), then its value; integers are zigzag varints; https://parquet.apache.org/docs/file-format/.
"""

from typing import Any, BinaryIO, NamedTuple

LONGEST = 1 << 16  # bytes of a header; an honest one has less than a hundred
MOST_PAGES = 1 << 14  # of one column of one row group
STOP, TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, STRUCT = 0, 1, 2, 3, 4, 5, 6, 7, 8, 12
DATA, DICTIONARY, DATA_V2 = 0, 2, 3  # types of pages
KIND, SIZE, STORED, CRC, HEAD = 1, 2, 3, 4, {DATA: 5, DICTIONARY: 7, DATA_V2: 8}  # ids of a header's fields
ENCODINGS = {DATA: 2, DICTIONARY: 2, DATA_V2: 4}  # ... and of the head's: which encoding; the number of values is 1
KNOWN = {0, 2, 3, 8, 9}  # plain, dictionary (old, runs, new), byte-stream-split

Fields = dict[int, Any]


class Page(NamedTuple):
    """What a page's header claims: its type, bytes when decompressed, and values."""

    kind: int
    size: int
    values: int


def pages_of(file: BinaryIO, start: int, stored: int) -> list[Page]:
    """The pages of a column chunk of ``stored`` bytes from ``start`` on.

    Raises:
        ValueError: they do not fill it exactly, are too many, or one is of an unknown kind or without a checksum.
        LookupError: a header is cut short.
    """
    out, at, end = list[Page](), start, start + stored
    while at < end:
        file.seek(at)
        fields, length = _struct(file.read(min(LONGEST, end - at)), 0, 0)
        out.append(_page(fields))
        at += length + int(fields[STORED])
        if len(out) > MOST_PAGES:
            raise ValueError(f"a column has more than {MOST_PAGES} pages")
    if at != end or start < 4:
        raise ValueError("the pages of a column do not fill its place")
    return out


def _page(fields: Fields) -> Page:
    kind = fields[KIND]
    if kind not in HEAD or CRC not in fields:
        raise ValueError("a page has no checksum" if kind in HEAD else f"a page is of the kind {kind}")
    head = fields[HEAD[kind]]
    if head[ENCODINGS[kind]] not in KNOWN:
        raise ValueError(f"a page has the encoding {head[ENCODINGS[kind]]}")
    page = Page(kind, fields[SIZE], head[1])
    if min(page.size, page.values, fields[STORED]) < 0:
        raise ValueError(f"a page claims {page.values} values in {page.size} bytes")
    return page


def _struct(raw: bytes, at: int, depth: int) -> tuple[Fields, int]:
    """(fields by id, where it ends) of the struct that begins at ``at``."""
    out, last = Fields(), 0
    while (head := raw[at]) != STOP:
        at += 1
        if head >> 4:
            last += head >> 4
        else:
            last, at = _integer(raw, at)
        if last in out or depth > 4:
            raise ValueError("a page has a header that is no header")
        out[last], at = _value(raw, at, head & 15, depth)
    return out, at + 1


def _value(raw: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (TRUE, FALSE):
        return kind == TRUE, at
    if kind in (I16, I32, I64):
        return _integer(raw, at)
    if kind == STRUCT:
        return _struct(raw, at, depth + 1)
    if kind == BINARY:
        length, at = _varint(raw, at)
        return None, at + length  # smallest and largest value: nobody here reads them
    if kind in (BYTE, DOUBLE):
        return None, at + (1 if kind == BYTE else 8)
    raise ValueError(f"a page has a header with a field of type {kind}")


def _integer(raw: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(raw, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a page has a header with an endless number")
