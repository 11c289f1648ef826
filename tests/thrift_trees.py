"""Parquet's footers and page headers, taken apart and put together again with other claims in them.

Thrift's compact protocol: a struct is {id: (type, value)}, a list is (type of its items, items).
"""

from pathlib import Path
from typing import Any

Tree = dict[int, tuple[int, Any]]
I32, I64, BINARY, LIST, STRUCT = 5, 6, 8, 9, 12
SCHEMA, ROWS, GROUPS = 2, 3, 4  # of the footer
COLUMNS, GROUP_ROWS = 1, 3  # of a row group
FILE_PATH, META = 1, 3  # of a column chunk
CODEC, VALUES, STORED, DATA_AT, DICTIONARY_AT = 4, 5, 7, 9, 11  # of its metadata


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def read_varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value, shift, at = value | (raw[at] & 127) << shift, shift + 7, at + 1
        if raw[at - 1] < 128:
            return value, at


def decode(raw: bytes, at: int = 0) -> tuple[Tree, int]:
    out, last = Tree(), 0
    while raw[at]:
        kind, step = raw[at] & 15, raw[at] >> 4
        at += 1
        if not step:
            zigzag, at = read_varint(raw, at)
            last = (zigzag >> 1) ^ -(zigzag & 1)
        last += step
        value, at = (None, at) if kind in (1, 2) else _decoded(raw, at, kind)
        out[last] = kind, value
    return out, at + 1


def _decoded(raw: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in (4, I32, I64):
        zigzag, at = read_varint(raw, at)
        return (zigzag >> 1) ^ -(zigzag & 1), at
    if kind == BINARY:
        length, at = read_varint(raw, at)
        return raw[at : at + length], at + length
    if kind == STRUCT:
        return decode(raw, at)
    if kind in (1, 2, 3):
        return raw[at : at + 1], at + 1
    assert kind == LIST
    inner, count = raw[at] & 15, raw[at] >> 4
    at += 1
    if count == 15:
        count, at = read_varint(raw, at)
    items = []
    for _ in range(count):
        item, at = _decoded(raw, at, inner)
        items.append(item)
    return (inner, items), at


def encode(tree: Tree) -> bytes:
    out, last = bytearray(), 0
    for number, (kind, value) in sorted(tree.items()):
        out.append((number - last) << 4 | kind)
        out += b"" if kind in (1, 2) else _encoded(kind, value)
        last = number
    return bytes([*out, 0])


def _encoded(kind: int, value: Any) -> bytes:
    if kind in (4, I32, I64):
        return varint((value << 1) ^ (value >> 63))
    if kind == BINARY:
        return varint(len(value)) + bytes(value)
    if kind == STRUCT:
        return encode(value)
    if kind in (1, 2, 3):
        return bytes(value)
    inner, items = value
    head = bytes([len(items) << 4 | inner]) if len(items) < 15 else bytes([0xF0 | inner]) + varint(len(items))
    made = {key: _encoded(inner, item) for key, item in {id(item): item for item in items}.items()}
    return head + b"".join(made[id(item)] for item in items)  # one that stands there a million times is encoded once


def footer(path: Path) -> tuple[bytes, Tree]:
    """(all before the footer, the footer)."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[-8:-4], "little")
    return raw[: -8 - length], decode(raw[-8 - length : -8])[0]


def write(path: Path, body: bytes, foot: Tree) -> None:
    made = encode(foot)
    path.write_bytes(body + made + len(made).to_bytes(4, "little") + b"PAR1")


def column(foot: Tree, group: int, number: int) -> Tree:
    """The struct of a column chunk."""
    found: Tree = foot[GROUPS][1][1][group][COLUMNS][1][1][number]
    return found


def with_page(path: Path, group: int, number: int, change: Any) -> None:
    """Put the first page of a column, with its header changed, at the end of the file, and let the footer find it."""
    body, foot = footer(path)
    meta: Tree = column(foot, group, number)[META][1]
    begin = min(meta[at][1] for at in (DATA_AT, DICTIONARY_AT) if at in meta)
    end = begin + meta[STORED][1]
    header, data = decode(body, begin)
    change(header)
    made = encode(header) + body[data:end]
    old = {at: meta[at][1] for at in (DATA_AT, DICTIONARY_AT) if at in meta}
    for at, place in old.items():
        shift = 0 if place == begin else len(made) - (end - begin)
        meta[at] = I64, len(body) + place - begin + shift
    meta[STORED] = I64, len(made)
    write(path, body + made, foot)
