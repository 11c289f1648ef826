"""Sizes of memory as people write them."""

import math
import re

from coreinfer.errors import CoreInferError

UNITS = {f"{letter}{kind}": (1024 if kind == "iB" else 1000) ** (power + 1)
         for power, letter in enumerate("KMGT") for kind in ("iB", "B")}  # fmt: skip
_WRITTEN = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]i?B)")


def parse_size(text: str) -> int:
    """Bytes of a size such as ``12GiB``, ``800MiB`` or ``1.5GB`` (GB is 10^9 bytes, GiB 2^30).

    Raises:
        CoreInferError: anything else, or less than one byte.
    """
    found = _WRITTEN.fullmatch(text.strip())
    size = int(float(found[1]) * UNITS[found[2]]) if found and len(found[1]) < 20 else 0
    if size < 1:
        raise CoreInferError(f"the memory is {text!r}: give a size such as 12GiB, 800MiB or 1.5GB")
    return size


def size_in_words(size: int) -> str:
    """As a user could write it, rounded up: so much is enough."""
    unit, digits = ("GiB", 2) if size >= UNITS["GiB"] else ("MiB", 1)
    step = 10**digits
    return f"{math.ceil(size * step / UNITS[unit]) / step:.{digits}f} {unit}"
