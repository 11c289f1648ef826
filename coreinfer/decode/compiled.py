"""The inner loops of a CPU's step, compiled by Numba once and kept beside this file: no call costs more than its work.

Weights are bfloat16, which NumPy does not know: they come as the uint16 that their bits are, or as float32. All that is
between them is float32.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

from coreinfer.decode.tiles import tile, widened

MADE_OF = "27e627db7aa7"  # hash of what this file's loops are made of; a test says which
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


def rows(w: Any, x: Any, y: Any, first: int, end: int) -> None:
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


rows = njit(**FAST)(rows)


@njit(**FAST)
def product(w: Any, x: Any, bias: Any, y: Any) -> None:
    """y (R, m) = x (R, n) @ w (m, n).T + bias (m,)."""
    y[:] = bias
    rows(w, x, y, 0, len(w))


@njit(parallel=True, **FAST)
def columns(w: Any, ids: Any, out: Any) -> None:
    """out (m, k) = w (m, n)[:, ids], by all threads."""
    for row in prange(len(w)):
        for j in range(len(ids)):
            out[row, j] = w[row, ids[j]]


def normed_row(x: Any, weight: Any, shift: Any, eps: float, out: Any) -> None:
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


normed_row = njit(**FAST)(normed_row)


@njit(**FAST)
def normed(x: Any, weight: Any, shift: Any, eps: float, out: Any) -> None:
    """RMS norm of each row (R, n); a layer norm where there is a ``shift`` (n,). Without a weight it only copies."""
    if not len(weight):
        out[:] = x
        return
    for r in range(len(x)):
        normed_row(x[r], weight, shift, eps, out[r])


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
