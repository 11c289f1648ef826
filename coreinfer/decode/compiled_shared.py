"""What a team does of ``compiled``'s loops and ``compiled_heads``'. A job is its kind, addresses and sizes, on the
team's board.
"""

from typing import Any

import numpy as np
from numba import carray, njit

from coreinfer.decode.compiled import FAST, rows
from coreinfer.decode.compiled_heads import attend_one
from coreinfer.decode.team import JOB, all_done, did, looked, offer, pointer, taken

MADE_OF = "54cccedfeac6"  # as ``compiled``'s
PART, FEWEST, MOST = 1 << 17, 8, 256  # weights of a team's part, and about how many parts a loop has
LINE = 16  # floats of a line of the cache
PRODUCT, NARROW_PRODUCT, ATTENTION, NARROW_ATTENTION, KINDS = range(5)


@njit(**FAST)
def _is_narrow(x: Any) -> int:
    return 1 if x.itemsize == 2 else 0


@njit(nogil=True, **FAST)
def shared_product(board: Any, w: Any, x: Any, bias: Any, y: Any) -> None:
    """``product`` by a team: parts are blocks of weight rows."""
    y[:] = bias
    each = block(len(w), x.shape[1])
    parts = -(-len(w) // each)
    j = board[JOB:]
    j[0], j[1], j[2], j[3] = PRODUCT + _is_narrow(w), w.ctypes.data, x.ctypes.data, y.ctypes.data
    j[4], j[5], j[6], j[7] = len(x), len(w), x.shape[1], each
    _lead(board, parts)


@njit(**FAST)
def block(count: int, size: int) -> int:
    """How many of ``count`` rows of ``size`` weights a part has: whole tiles, and whole lines of the cache of what they
    make, which two processors would else take from one another (where those begin on one).
    """
    some = max(min(PART // size, count // FEWEST), -(-count // MOST))
    return -(-some // LINE) * LINE


@njit(**FAST)
def _product_part(j: Any, w: Any, part: int) -> None:
    x, y = carray(pointer(j[2]), (j[4], j[6]), np.float32), carray(pointer(j[3]), (j[4], j[5]), np.float32)
    rows(w, x, y, part * j[7], min(j[5], (part + 1) * j[7]))


@njit(nogil=True, **FAST)
def shared_attend(
    board: Any, heads: int, qkv: Any, keys: Any, values: Any, slots: Any, positions: Any, window: int, scale: float,
    cap: float, s: Any, out: Any,
) -> None:  # fmt: skip
    """``attend`` by a team: parts are heads."""
    j = board[JOB:]
    j[0], j[1], j[2], j[3] = ATTENTION + _is_narrow(keys), qkv.ctypes.data, keys.ctypes.data, values.ctypes.data
    j[4], j[5], j[6], j[7] = slots.ctypes.data, positions.ctypes.data, s.ctypes.data, out.ctypes.data
    j[8], j[9], j[10], j[11] = len(qkv), qkv.shape[1], qkv.shape[2], heads
    j[12], j[13], j[14], j[15] = keys.shape[0], keys.shape[1], keys.shape[2], window
    j[16], j[17] = np.float64(scale).view(np.int64), np.float64(cap).view(np.int64)
    _lead(board, len(qkv) * heads)


@njit(**FAST)
def _attention_part(j: Any, keys: Any, values: Any, n: int) -> None:
    qkv, out = (carray(pointer(j[1]), (j[8], j[9], j[10]), np.float32),
                carray(pointer(j[7]), (j[8], j[11], j[10]), np.float32))  # fmt: skip
    slots, positions = carray(pointer(j[4]), (j[8],), np.int32), carray(pointer(j[5]), (j[8],), np.int32)
    s = carray(pointer(j[6]), (j[8] * j[11], j[13]), np.float32)
    scale, cap = np.int64(j[16]).view(np.float64), np.int64(j[17]).view(np.float64)
    attend_one(n, j[11], qkv, keys, values, slots, positions, j[15], scale, cap, s, out)


@njit(**FAST)
def any_part(board: Any, part: int) -> None:
    """One of a job of these."""
    j = board[JOB:]
    if j[0] == PRODUCT:
        _product_part(j, carray(pointer(j[1]), (j[5], j[6]), np.float32), part)
    elif j[0] == NARROW_PRODUCT:
        _product_part(j, carray(pointer(j[1]), (j[5], j[6]), np.uint16), part)
    else:
        shape = (j[12], j[13], j[14], j[10])
        if j[0] == ATTENTION:
            _attention_part(j, carray(pointer(j[2]), shape, np.float32), carray(pointer(j[3]), shape, np.float32), part)
        else:
            _attention_part(j, carray(pointer(j[2]), shape, np.uint16), carray(pointer(j[3]), shape, np.uint16), part)


@njit(nogil=True, **FAST)
def helps(board: Any, patience: int) -> None:
    """Do parts until there have been none for a while."""
    idle = 0
    while idle < patience:
        part = taken(board)
        if part >= 0:
            any_part(board, part)
            did(board)
            idle = 0
        else:
            idle = looked(idle)


@njit(**FAST)
def _lead(board: Any, parts: int) -> None:
    offer(board, parts)
    helps(board, 1)
    all_done(board, parts)
