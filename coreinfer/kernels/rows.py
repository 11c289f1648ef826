"""Several rows at a time: matrices of weights times a few vectors, on tensor cores.

A tile of weights meets all R vectors, of which there are 16 or more, some of them idle. What a row gives does not
depend on the others: each element of a product is summed by itself, in the same order. Vectors are (R, n), in the
weights' dtype from where they are made. With two HALVES the second half of them holds what rounding left of the first:
products of both add up to those of a single row's step, whose vectors are float32, but for the order of additions.
"""

import triton
import triton.language as tl

from coreinfer.kernels.neurons import activated
from coreinfer.kernels.vectors import is_last, put, scaled, stream, wait


@triton.jit
def ready(
    out, before, added, now, norm, shift, after, eps,  # (R, H), then as ``project``
    H: tl.constexpr, HB: tl.constexpr, LOW: tl.constexpr, CENTER: tl.constexpr, AFTER: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Program r: the residual stream of a row with what was added to it, and the same normed. LOW: as ``put``."""
    row, i = tl.program_id(0) * H, tl.arange(0, HB)
    inside = i < H
    scale = tl.load(norm + i, mask=inside, other=0.0)
    bias = tl.load(shift + i, mask=inside, other=0.0) if CENTER else 0.0
    scale_after = tl.load(after + i, mask=inside, other=0.0) if AFTER else 0.0
    wait(PDL)
    x = stream(before + row, added + row, i, inside, scale_after, eps, H, AFTER)
    tl.store(now + row + i, x, mask=inside)
    put(out + row + i, scaled(x, scale, bias, inside, eps, H, CENTER), inside, LOW)


@triton.jit
def whole(y, HALVES: tl.constexpr):
    """Products (n, R) of both halves, added up: (n, R / HALVES)."""
    return tl.sum(tl.reshape(y, (y.shape[0], HALVES, y.shape[1] // HALVES)), 1) if HALVES > 1 else y


@triton.jit
def products(
    weight, at, there, x, H: tl.constexpr, BK: tl.constexpr, R: tl.constexpr, SECOND: tl.constexpr
):  # fmt: skip
    """Rows that begin at ``at`` (n,) of a matrix, times R vectors (R, H): (n, R); and, if there are, the second ones,
    which begin SECOND elements later.
    """
    k, r = tl.arange(0, BK), tl.arange(0, R)
    total = tl.zeros((at.shape[0], R), tl.float32)
    other = total
    for begin in tl.range(0, H, BK):
        inside = begin + k < H
        here = weight + at[:, None] + begin + k
        w = tl.load(here, mask=there[:, None] & inside, other=0.0)
        v = tl.load(x + r[None, :] * H + begin + k[:, None], mask=inside[:, None], other=0.0)
        total = tl.dot(w, v, total, input_precision="ieee")
        if SECOND:
            w = tl.load(here + SECOND, mask=there[:, None] & inside, other=0.0)
            other = tl.dot(w, v, other, input_precision="ieee")
    return total, other


@triton.jit
def multiply(
    out, weight, bias, x, N, cap,  # (R, N) float32; (N, H); (N,) float32; (R, H)
    H: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, R: tl.constexpr, HALVES: tl.constexpr, BIAS: tl.constexpr,
    CAP: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out = x @ weight^T + bias; CAP: softly capped at ``cap``."""
    n, r = tl.program_id(0) * BN + tl.arange(0, BN), tl.arange(0, R // HALVES)
    wait(PDL)
    y, _ = products(weight, n.to(tl.int64) * H, n < N, x, H, BK, R, 0)
    y = whole(y, HALVES)
    if BIAS:
        y += tl.load(bias + n, mask=n < N, other=0.0)[:, None]
    if CAP:
        y = (2 * tl.sigmoid(2 * y / cap) - 1) * cap
    tl.store(out + r[None, :] * N + n[:, None], y, mask=(n < N)[:, None])


@triton.jit
def activate_rows(
    out, neurons, ids, bias, x, K, F,  # (R, F), of which K a row; (F, P, H); (K,) int32; (P - 1, F); (R, H)
    H: tl.constexpr, P: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, R: tl.constexpr, HALVES: tl.constexpr,
    LOW: tl.constexpr, ACT: tl.constexpr, BIAS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """The activations of the neurons ``ids``, rounded to the weights' dtype. LOW: as ``put``."""
    n, r = tl.program_id(0) * BN + tl.arange(0, BN), tl.arange(0, R // HALVES)
    there = n < K
    which = tl.load(ids + n, mask=there, other=0)
    at = which.to(tl.int64) * P * H
    wait(PDL)
    a, up = products(neurons, at, there, x, H, BK, R, H if P == 3 else 0)
    a, up = whole(a, HALVES), whole(up, HALVES)
    if BIAS:
        a += tl.load(bias + which, mask=there, other=0.0)[:, None]
    a = activated(a, ACT)
    if P == 3:
        if BIAS:
            up += tl.load(bias + F + which, mask=there, other=0.0)[:, None]
        a *= up
    put(out + r[None, :] * F + n[:, None], a, there[:, None], LOW)


@triton.jit
def deactivate_rows(
    out, neurons, ids, a, bias, parts, count, K, F,  # (R, H) float32; as above; (S, R, H) float32; a count a block
    H: tl.constexpr, P: tl.constexpr, BF: tl.constexpr, BH: tl.constexpr, R: tl.constexpr, HALVES: tl.constexpr,
    S: tl.constexpr, BIAS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out = a @ down columns of the neurons ``ids``. Program (b, s): a block of columns, of every S-th BF neurons."""
    block, part = tl.program_id(0), tl.program_id(1)
    h, r, f = block * BH + tl.arange(0, BH), tl.arange(0, R), tl.arange(0, BF)
    inside = h < H
    wait(PDL)
    total = tl.zeros((R, BH), tl.float32)
    for begin in tl.range(part * BF, K, S * BF):
        there = begin + f < K
        at = (tl.load(ids + begin + f, mask=there, other=0).to(tl.int64) * P + P - 1) * H
        w = tl.load(neurons + at[:, None] + h, mask=there[:, None] & inside, other=0.0)
        v = tl.load(a + r[:, None] * F + begin + f, mask=there, other=0.0)
        total = tl.dot(v, w, total, input_precision="ieee")
    if HALVES > 1:
        total = tl.sum(tl.reshape(total, (HALVES, R // HALVES, BH)), 0)
    rows: tl.constexpr = R // HALVES
    here = tl.arange(0, rows)[:, None] * H + h
    tl.store(parts + part * rows * H + here, total, mask=inside)
    if is_last(count + block, S):
        y = tl.zeros((rows, BH), tl.float32)
        for other in tl.range(0, S):
            y += tl.load(parts + other * rows * H + here, mask=inside, other=0.0, cache_modifier=".cg")
        if BIAS:
            y += tl.load(bias + h, mask=inside, other=0.0)
        tl.store(out + here, y, mask=inside)
