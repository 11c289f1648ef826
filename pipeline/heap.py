"""Freed memory given back to the system. The C library keeps what lies freed between blocks that are in use: after
thousands of batches of many sizes, more than all that is in use.
"""

import ctypes
from functools import cache
from typing import Any


def give_back() -> None:
    """Milliseconds; nothing where the C library has no such call."""
    if (trim := _trim()) is not None:
        trim(0)


@cache
def _trim() -> Any:
    try:
        return ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):  # not glibc
        return None
