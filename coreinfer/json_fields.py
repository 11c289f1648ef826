"""What a field of a JSON object must be: each function returns the value, or says by name and value why it is not that.

All of them raise ``ValueError``.
"""

import re
from dataclasses import fields
from typing import Any

LARGEST = 1 << 40  # no honest count is larger
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a name is printed: it must not command the terminal
SHA256 = re.compile(r"[0-9a-f]{64}")


def shown(value: object) -> str:
    """A value for a message: short, in one line."""
    return repr(value)[:80]


def record(name: str, value: Any, kind: type | None) -> dict[str, Any]:
    """An object, with exactly the fields of a dataclass if one is given."""
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {shown(value)}, no object")
    wanted = {field.name for field in fields(kind)} if kind is not None else set(value)
    if odd := sorted(wanted ^ set(value)):
        fault = "lacks" if odd[0] in wanted else "has an unknown"
        raise ValueError(f"{name} {fault} {shown(odd[0])}")
    return value


def text(name: str, value: Any) -> str:
    """Some text that a terminal can show."""
    if not isinstance(value, str) or not value or CONTROL.search(value):
        raise ValueError(f"{name} is {shown(value)}, no text")
    return value


def whole(name: str, value: Any, least: int = 0) -> int:
    """A whole number from ``least`` on that can be of something real."""
    if type(value) is not int or not least <= value < LARGEST:  # a bool is an int too
        raise ValueError(f"{name} is {shown(value)}, no whole number from {least} to {LARGEST - 1}")
    return value


def count(name: str, value: Any) -> int:
    """The same, from 1 on."""
    return whole(name, value, 1)


def number(name: str, value: Any) -> float:
    """Any number."""
    if type(value) not in (int, float):
        raise ValueError(f"{name} is {shown(value)}, no number")
    return float(value)


def hash_of(name: str, value: Any) -> str:
    """A sha256."""
    if not isinstance(value, str) or not SHA256.fullmatch(value):
        raise ValueError(f"{name} is {shown(value)}, not the 64 hexadecimal digits of a sha256")
    return value
