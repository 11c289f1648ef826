"""What a Parquet file claims, in its footer and its pages, looked at before a library makes room for it.

A library believes these claims: three bytes of a page's header make it set two gigabytes aside, or decode a run of a
billion equal values, and some footers end the whole process where PyArrow only shows them. So they are read here
first. https://parquet.apache.org/docs/file-format/ and its parquet.thrift have the fields' ids.
"""

import os
from typing import BinaryIO, NamedTuple

from coreinfer.thrift import I32, I64, STRUCT, Fields, field, struct, structs

LONGEST = 1 << 16  # bytes of a page's header; an honest one has less than a hundred
MOST_PAGES = 1 << 14  # of one column of one row group
MOST_FOOTER, EACH_GROUP = 1 << 16, 1 << 10  # bytes of a footer, and for each row group that belongs there
MAGIC = b"PAR1"
DATA, DICTIONARY, DATA_V2 = 0, 2, 3  # types of pages
GROUPS, ENCRYPTED, COLUMNS, ROWS, PATH, META = 4, 8, 1, 3, 1, 3  # ids of fields: of a footer, a row group, a chunk
VALUES, STORED, DATA_AT, DICTIONARY_AT = 5, 7, 9, 11  # ... and of a chunk's metadata
KIND, SIZE, PAGE_STORED, CRC, HEAD = 1, 2, 3, 4, {DATA: 5, DICTIONARY: 7, DATA_V2: 8}  # ... and of a page's header
ENCODING = {DATA: 2, DICTIONARY: 2, DATA_V2: 4}  # ... and of the head in it, where 1 is the number of values
KNOWN = {0, 2, 3, 8, 9}  # encodings: plain, dictionary (old, runs, new), byte-stream-split


class Chunk(NamedTuple):
    """A column of a row group: values, and where its bytes are."""

    values: int
    start: int
    stored: int


class Group(NamedTuple):
    """A row group: rows, and a chunk a column."""

    rows: int
    chunks: tuple[Chunk, ...]


class Page(NamedTuple):
    """What a page's header claims: its type, bytes when decompressed, and values."""

    kind: int
    size: int
    values: int


def groups_of(file: BinaryIO, wanted: int) -> tuple[Group, ...]:
    """The row groups that a file's footer names, where so many belong.

    Raises:
        ValueError, LookupError: no Parquet, or a footer with a fault, or encrypted columns, or ones in other files.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or not 0 < length <= min(size - 12, MOST_FOOTER + wanted * EACH_GROUP):
        raise ValueError(f"it is no Parquet, or has a footer of {length} bytes")
    file.seek(size - 8 - length)
    footer, end = struct(file.read(length))
    groups = structs(footer, GROUPS)
    if len(groups) != wanted:
        raise ValueError(f"it has {len(groups)} row groups, not {wanted}")
    if end != length or ENCRYPTED in footer:
        raise ValueError("its footer is followed by something, or encrypted")
    return tuple(
        Group(field(group, ROWS, I64), tuple(_chunk(one) for one in structs(group, COLUMNS))) for group in groups
    )


def _chunk(fields: Fields) -> Chunk:
    if PATH in fields or ENCRYPTED in fields:
        raise ValueError("a column lies in another file, or is encrypted")
    meta: Fields = field(fields, META, STRUCT)
    data = field(meta, DATA_AT, I64)
    start = min(data, field(meta, DICTIONARY_AT, I64)) if DICTIONARY_AT in meta else data
    if start < len(MAGIC):
        raise ValueError(f"a column begins at {start}")
    return Chunk(field(meta, VALUES, I64), start, field(meta, STORED, I64))


def pages_of(file: BinaryIO, chunk: Chunk) -> list[Page]:
    """The pages of a column chunk.

    Raises:
        ValueError: they do not fill it exactly, are too many, or one is of an unknown kind or without a checksum.
        LookupError: a header is cut short.
    """
    out, at, end = list[Page](), chunk.start, chunk.start + chunk.stored
    while at < end:
        file.seek(at)
        fields, length = struct(file.read(min(LONGEST, end - at)))
        out.append(_page(fields))
        at += length + int(field(fields, PAGE_STORED, I32))
        if len(out) > MOST_PAGES:
            raise ValueError(f"a column has more than {MOST_PAGES} pages")
    if at != end:
        raise ValueError("the pages of a column do not fill its place")
    return out


def _page(fields: Fields) -> Page:
    kind = field(fields, KIND, I32)
    if kind not in HEAD:
        raise ValueError(f"a page is of the kind {kind}")
    field(fields, CRC, I32)  # without it, nothing would check what is decompressed
    head: Fields = field(fields, HEAD[kind], STRUCT)
    if (encoding := field(head, ENCODING[kind], I32)) not in KNOWN:
        raise ValueError(f"a page has the encoding {encoding}")
    page = Page(kind, field(fields, SIZE, I32), field(head, 1, I32))
    if min(page.size, page.values, field(fields, PAGE_STORED, I32)) < 0:
        raise ValueError(f"a page claims {page.values} values in {page.size} bytes")
    return page


def values_of(pages: list[Page]) -> int:
    """How many values data pages claim together."""
    return sum(page.values for page in pages if page.kind != DICTIONARY)


def expanded(pages: list[Page], values: int) -> int:
    """Bytes that texts in the pages can become at most: one of a dictionary may stand for every value."""
    dictionary = sum(page.size for page in pages if page.kind == DICTIONARY)
    return sum(page.size for page in pages) + dictionary * values
