"""Files that are not what their names say, or not to their end: how they are told, and which are not UTF-8."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from coreinfer.errors import CoreInferError
from coreinfer.wording import counted

SEEN = 512  # bytes of a file's start that tell its encoding
HEAD = 64  # records by which a file is judged before any of it is used
WIDE = {  # the longer marks first: UTF-32's begins as UTF-16's
    codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}  # fmt: skip

Row = dict[str, object] | bytes  # columns, or the raw bytes of what is not UTF-8, as a column's value may be too
Rows = Iterator[tuple[int, Row]]


class Unreadable(CoreInferError):
    """A file that is not what its name says, or not to its end."""


def check_encoding(start: bytes, name: str) -> None:
    """Refuse a file of text by its first bytes: UTF-16 would be read as lines of bad JSON, NUL bytes as a text.

    Raises:
        Unreadable: it is UTF-16 or UTF-32, or starts with NUL bytes.
    """
    start = start[:SEEN]
    for mark, encoding in WIDE.items():
        if start.startswith(mark):
            raise Unreadable(f"{name} is {encoding}, as its byte order mark says: convert it to UTF-8")
    odd = [2 * half.count(0) > len(half) for half in (start[::2], start[1::2])]
    if all(odd):
        raise Unreadable(f"{name} starts with NUL bytes, which are no text: replace or remove it")
    if any(odd) and len(start) > 1:
        raise Unreadable(f"{name} seems to be UTF-16 (every other byte is NUL): convert it to UTF-8")


def mostly_decoded(rows: Rows, name: str, unit: str) -> Rows:
    """The rows of a file, as they are. It is judged by its first ones, before any of them is used, and once more at its
    end. ``unit``: what their numbers count.

    Raises:
        Unreadable: more than half of them are not UTF-8.
    """
    found = _Found(name, unit)
    noted = map(found.noted, rows)
    head = list[tuple[int, Row]]()
    try:
        head.extend(islice(noted, HEAD))
    except Unreadable:
        found.judge("first ")  # of a line among such records that happens to decode, nothing better can be said
        raise
    found.judge("first " if len(head) == HEAD else "")
    yield from head
    yield from noted
    found.judge()


@dataclass
class _Found:
    """How many rows of a file were seen, how many of them are not UTF-8, and the number of the first of those."""

    name: str
    unit: str
    seen: int = 0
    bad: int = 0
    first: int = 0

    def noted(self, numbered: tuple[int, Row]) -> tuple[int, Row]:
        number, row = numbered
        self.seen += 1
        if isinstance(row, bytes) or any(isinstance(value, bytes) for value in row.values()):
            self.bad += 1
            self.first = self.first or number
        return numbered

    def judge(self, which: str = "") -> None:
        if 2 * self.bad > self.seen:
            raise Unreadable(
                f"{self.name} is not UTF-8 in {self.bad:,} of its {which}{counted(self.seen, 'record')}, the first at "
                f"{self.unit} {self.first}: convert it to UTF-8, mend or remove it"
            )
