"""Some arrays and what is to be known of them, in one sealed file: a line of JSON, then the arrays' bytes as they are.
Arrays are read as views of a memory map. No pickles.
"""

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data import Arrays
from pipeline.shards.sealed import as_bytes, open_sealed, write_sealed

ALIGNED = 64  # bytes at whose multiples arrays begin


def write_arrays(path: Path, key: str, facts: dict[str, Any], arrays: Arrays, first: bool = False) -> None:
    """Write them whole, or nothing; ``first``: unless the file is there.

    Raises:
        OSError: the disk refuses.
    """
    write_sealed(path, key, _pieces(facts, arrays), first)


def _pieces(facts: dict[str, Any], arrays: Arrays) -> Iterator[bytes | memoryview]:
    kinds = [(array.dtype.str, array.shape) for array in arrays]
    head = json.dumps({"facts": facts, "arrays": kinds}).encode()
    yield head + b" " * (-(len(head) + 1) % ALIGNED) + b"\n"
    for array in arrays:
        yield as_bytes(array)
        yield b"\0" * (-array.nbytes % ALIGNED)


def read_arrays(path: Path, key: str) -> tuple[dict[str, Any], list[NDArray[Any]]] | None:
    """What was written; None where nothing is, or something damaged or of another key."""
    if (raw := open_sealed(path, key)) is None:
        return None
    end = next(at for at in range(ALIGNED, len(raw) + 1, ALIGNED) if raw[at - 1] == ord("\n"))
    head = json.loads(raw[:end].tobytes())
    arrays = list[NDArray[Any]]()
    for kind, shape in head["arrays"]:
        size = np.dtype(kind).itemsize * prod(shape)
        arrays.append(raw[end : end + size].view(kind).reshape(shape))
        end += size + -size % ALIGNED
    return head["facts"], arrays
