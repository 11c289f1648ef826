"""JSON without trust: small, UTF-8, each name once, no number that is none, and nested no deeper than people would."""

import json
from pathlib import Path
from typing import Any, NoReturn

MOST_BYTES, MOST_VALUES = 1 << 20, 100_000  # an honest file has some kilobytes, and some hundred values
DEEPEST = 32  # what copies, compares or prints the value recurses so far


def read(path: Path) -> Any:
    """The value that a file holds.

    Raises:
        ValueError: too large, not UTF-8, no JSON, or what ``parse`` refuses.
        OSError: it cannot be read.
    """
    return parse(text_of(path))


def text_of(path: Path) -> str:
    """A file's text.

    Raises:
        ValueError: too large, or not UTF-8.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        raw = file.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise ValueError(f"{path.name} has more than {MOST_BYTES:,} bytes")
    return raw.decode("utf-8")


def parse(text: str, most: int = MOST_VALUES) -> Any:
    """The value of a text, with at most so many values.

    Raises:
        ValueError: no JSON, a name that an object has twice, NaN or an infinity, a lone surrogate, too
            deep or too many values.
        RecursionError: far too deep.
    """
    value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite)
    _look_through(value, most)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Parsers disagree on which of two equal names counts, so that two readers would see two artifacts."""
    out: dict[str, Any] = {}
    for name, value in pairs:
        if name in out:
            raise ValueError(f"{name[:80]!r} stands twice in one object")
        out[name] = value
    return out


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if abs(value) == float("inf"):
        raise ValueError(f"{digits[:80]} is too large a number")
    return value


def _look_through(value: Any, values: int) -> None:
    """Depth, number and texts of what is inside, without recursion."""
    level, depth, seen = [value], 0, 1
    while level:
        if depth > DEEPEST or seen > values:
            most = f"deeper than {DEEPEST} levels" if depth > DEEPEST else f"more than {values:,} values"
            raise ValueError(f"it holds {most}")
        below = list[Any]()
        for one in level:
            if isinstance(one, str):
                one.encode("utf-8")  # a lone surrogate is no text: it could never be written again
            elif isinstance(one, dict):
                below += [*one, *one.values()]
            elif isinstance(one, list):
                below += one
        level, depth, seen = below, depth + 1, seen + len(below)
