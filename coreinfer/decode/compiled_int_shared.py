"""What a team does of ``compiled_int``'s products, beside all that ``compiled_shared`` knows.

Numba keeps what it compiled by the file that a function is in, so ``helps`` stands here again, around other parts.
"""

from typing import Any

import numpy as np
from numba import carray, njit

from coreinfer.decode.compiled import FAST
from coreinfer.decode.compiled_int import across_rows, rows
from coreinfer.decode.compiled_shared import KINDS, any_part, block
from coreinfer.decode.team import JOB, all_done, did, looked, offer, pointer, taken
from coreinfer.quantised.packed import DEEP, GROUP

MADE_OF = "e133a992d7f4"  # as ``compiled``'s


@njit(nogil=True, **FAST)
def shared_product(board: Any, w: Any, s: Any, x: Any, bias: Any, y: Any, across: bool) -> None:
    """``product`` by a team: parts are blocks of y's columns."""
    y[:] = bias
    j, m = board[JOB:], y.shape[1]
    each = -(-block(m, len(w) if across else w.shape[1]) // GROUP) * GROUP
    j[0], j[1], j[2], j[3], j[4] = KINDS + s.ndim, w.ctypes.data, s.ctypes.data, x.ctypes.data, y.ctypes.data
    j[5], j[6], j[7], j[8], j[9], j[10] = len(x), len(w), w.shape[1], int(across), m, each
    _lead(board, -(-m // each))


@njit(**FAST)
def _part_of(j: Any, w: Any, s: Any, part: int) -> None:
    m, first, end = j[9], part * j[10], min(j[9], (part + 1) * j[10])
    if j[8]:
        x, y = carray(pointer(j[3]), (j[5], j[6]), np.float32), carray(pointer(j[4]), (j[5], m), np.float32)
        across_rows(w, s, x, y, first, end)
    else:
        width = j[7] if j[0] == KINDS + 1 else j[7] * DEEP
        x, y = carray(pointer(j[3]), (j[5], width), np.float32), carray(pointer(j[4]), (j[5], m), np.float32)
        rows(w, s, x, y, first, end)


@njit(**FAST)
def _part(board: Any, part: int) -> None:
    j = board[JOB:]
    if j[0] < KINDS:
        any_part(board, part)
    elif j[0] == KINDS + 1:
        w, s = carray(pointer(j[1]), (j[6], j[7]), np.int8), carray(pointer(j[2]), (j[6],), np.float32)
        _part_of(j, w, s, part)
    else:
        shape = (j[6], j[7] * DEEP // GROUP)
        _part_of(j, carray(pointer(j[1]), (j[6], j[7]), np.uint16), carray(pointer(j[2]), shape, np.uint16), part)


@njit(nogil=True, **FAST)
def helps(board: Any, patience: int) -> None:
    """As ``compiled_shared``'s, whose jobs a quantised model has as well."""
    idle = 0
    while idle < patience:
        part = taken(board)
        if part >= 0:
            _part(board, part)
            did(board)
            idle = 0
        else:
            idle = looked(idle)


@njit(**FAST)
def _lead(board: Any, parts: int) -> None:
    offer(board, parts)
    helps(board, 1)
    all_done(board, parts)
