"""The inner loops of a CPU's step, compiled by Numba once and kept beside this file: no call costs more than its work.

Weights are bfloat16, which NumPy does not know: they come as the uint16 that their bits are, or as float32. All that is
between them is float32.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, prange, types
from numba.extending import intrinsic

from coreinfer.decode.team import JOB, all_done, did, looked, offer, pointer, taken
from coreinfer.decode.tiles import tile, widened

MADE_OF = "3a7f58549070"  # hash of what this file's loops are made of; a test says which
PART, FEWEST, MOST = 1 << 15, 8, 256  # weights of a team's part, and about how many parts a loop has
LINE = 16  # floats of a line of the cache
FAST = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy", "boundscheck": False, "cache": True}
EXACT = {**FAST, "fastmath": False}  # in the order that is written


@intrinsic
def wide(typingctx: Any, x: Any) -> Any:
    """bfloat16 bits, or a float32, as float32."""
    return types.float32(x), lambda context, builder, signature, args: widened(builder, args[0])


@intrinsic
def narrow(typingctx: Any, x: Any, like: Any) -> Any:
    """A float32 as what ``like`` is: itself, or bfloat16 bits, rounded to the nearest, ties to even."""
    if like == types.float32:
        return types.float32(types.float32, types.float32), lambda context, builder, signature, args: args[0]

    def round_off(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        whole = ir.IntType(32)
        bits = builder.bitcast(args[0], whole)
        odd = builder.and_(builder.lshr(bits, ir.Constant(whole, 16)), ir.Constant(whole, 1))
        up = builder.add(builder.add(bits, ir.Constant(whole, 0x7FFF)), odd)
        return builder.trunc(builder.lshr(up, ir.Constant(whole, 16)), ir.IntType(16))

    return types.uint16(types.float32, types.uint16), round_off


four_by_four, four_by_two, four_by_one, one_by_one = tile(4, 4), tile(4, 2), tile(4, 1), tile(1, 1)


def _rows(w: Any, x: Any, y: Any, first: int, end: int) -> None:
    """y[:, first:end] += x @ w[first:end].T.

    Four rows of weights come from memory once, and stay in the nearest cache for all of x.
    """
    at, count = first, len(x)
    while at + 4 <= end:
        r = 0
        while r + 4 <= count:
            four_by_four(w, x, y, at, r)
            r += 4
        if r + 2 <= count:
            four_by_two(w, x, y, at, r)
            r += 2
        if r < count:
            four_by_one(w, x, y, at, r)
        at += 4
    for row in range(at, end):
        for r in range(count):
            one_by_one(w, x, y, row, r)


_rows = njit(**FAST)(_rows)


@njit(**FAST)
def product(w: Any, x: Any, bias: Any, y: Any) -> None:
    """y (R, m) = x (R, n) @ w (m, n).T + bias (m,)."""
    y[:] = bias
    _rows(w, x, y, 0, len(w))


@njit(parallel=True, **FAST)
def columns(w: Any, ids: Any, out: Any) -> None:
    """out (m, k) = w (m, n)[:, ids], by all threads."""
    for row in prange(len(w)):
        for j in range(len(ids)):
            out[row, j] = w[row, ids[j]]


def _normed(x: Any, weight: Any, shift: Any, eps: float, out: Any) -> None:
    """One row of ``normed``."""
    n, mean, square = len(x), np.float32(0), np.float32(0)
    if len(shift):
        for v in x:
            mean += v
        mean /= n
    for v in x:
        square += (v - mean) * (v - mean)
    scale = np.float32(1) / np.sqrt(square / n + np.float32(eps))
    for i in range(n):
        out[i] = (x[i] - mean) * scale * weight[i]
    if len(shift):
        for i in range(n):
            out[i] += shift[i]


_normed = njit(**FAST)(_normed)


@njit(**FAST)
def normed(x: Any, weight: Any, shift: Any, eps: float, out: Any) -> None:
    """RMS norm of each row (R, n); a layer norm where there is a ``shift`` (n,). Without a weight it only copies."""
    if not len(weight):
        out[:] = x
        return
    for r in range(len(x)):
        _normed(x[r], weight, shift, eps, out[r])


@njit(**FAST)
def _turn(qkv: Any, first: int, end: int, weight: Any, eps: float, table: Any, turned: int, positions: Any) -> None:
    """Norm the heads ``first`` to ``end`` of (R, n, D) by ``weight`` (D,), if it is not empty, then turn their first
    dimensions; in place.
    """
    half = turned // 2
    for r in range(len(qkv)):
        cos, sin = table[positions[r], 0], table[positions[r], 1]
        for h in range(first, end):
            head = qkv[r, h]
            if len(weight):
                _normed(head, weight, weight[:0], eps, head)
            for i in range(half):
                a, b = head[i], head[i + half]
                head[i] = a * cos[i] - b * sin[i]
                head[i + half] = b * cos[i + half] + a * sin[i + half]


@njit(**EXACT)
def _exp(x: Any) -> Any:
    """exp of a float32 that is not above 0, within 2 units in the last place, in instructions that have vectors: with
    n = round(x / ln 2), 2^n times the series of exp(x - n ln 2), each coefficient 1 / k!; what is less than 2^-126
    is that.
    """
    x = max(x, np.float32(-87.33654))
    n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = (x - n * np.float32(0.693359375)) + n * np.float32(2.12194440e-4)
    y = np.float32(1.0 / 5040)
    y = y * r + np.float32(1.0 / 720)
    y = y * r + np.float32(1.0 / 120)
    y = y * r + np.float32(1.0 / 24)
    y = y * r + np.float32(1.0 / 6)
    y = y * r + np.float32(0.5)
    y = y * r + np.float32(1)
    y = y * r + np.float32(1)
    return y * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


def _head(
    q: Any, keys: Any, values: Any, g: int, since: int, at: int, scale: float, cap: float, s: Any, out: Any
) -> None:
    """One query head (D,) over positions ``since`` to ``at`` of caches (C, KV, D); ``s`` (C,) is room for scores."""
    top = np.float32(-np.inf)
    for j in range(since, at + 1):
        a = np.float32(0)
        for i in range(len(q)):
            a += q[i] * wide(keys[j, g, i])
        a *= np.float32(scale)
        if cap > 0:
            a = np.float32(np.tanh(a / np.float32(cap)) * np.float32(cap))
        s[j] = a
        top = max(top, a)
    total = np.float32(0)
    for j in range(since, at + 1):
        s[j] = _exp(s[j] - top)
        total += s[j]
    out[:] = 0
    j = since
    while j + 4 <= at + 1:
        a, b, c, d = s[j], s[j + 1], s[j + 2], s[j + 3]
        for i in range(len(q)):
            out[i] += (a * wide(values[j, g, i]) + b * wide(values[j + 1, g, i])) + (
                c * wide(values[j + 2, g, i]) + d * wide(values[j + 3, g, i])
            )
        j += 4
    while j <= at:
        for i in range(len(q)):
            out[i] += s[j] * wide(values[j, g, i])
        j += 1
    for i in range(len(q)):
        out[i] /= total


_head = njit(**FAST)(_head)


def _attend_one(
    n: int, heads: int, qkv: Any, keys: Any, values: Any, slots: Any, positions: Any, window: int, scale: float,
    cap: float, s: Any, out: Any,
) -> None:  # fmt: skip
    """The n-th of all heads of all rows."""
    r, h = n // heads, n % heads
    at, slot, g = positions[r], slots[r], h // (heads // keys.shape[2])
    _head(qkv[r, h], keys[slot], values[slot], g, max(0, at + 1 - window), at, scale, cap, s[n], out[r, h])


_attend_one = njit(**FAST)(_attend_one)


@njit(**FAST)
def attend(
    heads: int, qkv: Any, keys: Any, values: Any, slots: Any, positions: Any, window: int, scale: float, cap: float,
    s: Any, out: Any,
) -> None:  # fmt: skip
    """The first ``heads`` of (R, n, D), each row over its slot of the caches (S, C, KV, D) up to its position: ``out``
    (R, heads, D).

    ``s`` (R heads, C): room for scores.
    """
    for n in range(len(qkv) * heads):
        _attend_one(n, heads, qkv, keys, values, slots, positions, window, scale, cap, s, out)


@njit(**FAST)
def _store(qkv: Any, first: int, cache: Any, slots: Any, positions: Any) -> None:
    """The heads of (R, n, D) from ``first`` on, each row's into its slot of a cache (S, C, KV, D)."""
    for r in range(len(qkv)):
        place = cache[slots[r], positions[r]]
        for g in range(len(place)):
            head = qkv[r, first + g]
            for i in range(len(head)):
                place[g, i] = narrow(head[i], place[g, i])


@njit(**FAST)
def remember(
    qkv: Any, heads: int, q_norm: Any, k_norm: Any, eps: float, table: Any, turned: int, keys: Any, values: Any,
    slots: Any, positions: Any,
) -> None:  # fmt: skip
    """Norm and turn the queries and keys of (R, n, D), in place, where a ``table`` (C, 2, D) says how, and put keys and
    values into their caches.
    """
    last = heads + keys.shape[2]
    if len(table):
        _turn(qkv, 0, heads, q_norm, eps, table, turned, positions)
        _turn(qkv, heads, last, k_norm, eps, table, turned, positions)
    _store(qkv, heads, keys, slots, positions)
    _store(qkv, last, values, slots, positions)


@njit(**FAST)
def embed(table: Any, tokens: Any, scale: float, places: Any, positions: Any, out: Any) -> None:
    """Rows of ``table`` (V, H) times ``scale``, and of ``places`` (C, H) if there are any -> (R, H)."""
    for r in range(len(out)):
        row = table[tokens[r]]
        for i in range(len(row)):
            out[r, i] = wide(row[i]) * np.float32(scale)
        if len(places):
            place = places[positions[r]]
            for i in range(len(place)):
                out[r, i] += wide(place[i])


@njit(**FAST)
def activate(gate: Any, up: Any, act: int, out: Any) -> None:
    """Projections (R, k) each -> activations (R, k). ``act``: its place in ``ACTS``; an empty ``up`` is none."""
    for r in range(len(out)):
        for i in range(out.shape[1]):
            x = gate[r, i]
            if act == 0:
                x = x / (np.float32(1) + np.exp(-x))
            elif act == 1:
                x = max(x, np.float32(0))
            elif act == 2:
                x = np.float32(0.5) * x * (np.float32(1) + np.float32(math.erf(x * np.float32(0.7071067811865476))))
            else:
                inner = np.float32(0.7978845608028654) * (x + np.float32(0.044715) * x * x * x)
                x = np.float32(0.5) * x * (np.float32(1) + np.float32(np.tanh(inner)))
            out[r, i] = x * up[r, i] if up.size else x


ACTS = ("silu", "relu", "gelu", "gelu_pytorch_tanh")


# What a team does of these loops. A job is its kind, addresses and sizes.
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
def block(rows: int, size: int) -> int:
    """How many of ``rows`` of ``size`` weights a part has: whole tiles, and whole lines of the cache of what they make,
    which two processors would else take from one another (where those begin on one).
    """
    some = max(min(PART // size, rows // FEWEST), -(-rows // MOST))
    return -(-some // LINE) * LINE


@njit(**FAST)
def _product_part(j: Any, w: Any, part: int) -> None:
    x, y = carray(pointer(j[2]), (j[4], j[6]), np.float32), carray(pointer(j[3]), (j[4], j[5]), np.float32)
    _rows(w, x, y, part * j[7], min(j[5], (part + 1) * j[7]))


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
    _attend_one(n, j[11], qkv, keys, values, slots, positions, j[15], scale, cap, s, out)


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


@njit(**FAST)
def _lead(board: Any, parts: int) -> None:
    offer(board, parts)
    part = taken(board)
    while part >= 0:
        any_part(board, part)
        did(board)
        part = taken(board)
    all_done(board, parts)


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
