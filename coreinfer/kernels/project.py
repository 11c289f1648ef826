"""The residual stream, normed, times a matrix; or a plain vector times a matrix."""

import triton
import triton.language as tl

from coreinfer.kernels.vectors import part_of, scaled, stream, wait
from coreinfer.kernels.weights import dot, parts, places, rows_of


@triton.jit
def project(
    out, weight, scales, bias,  # (N,) float32; (N, H) and scales of 8 or 4 BITS; (N,) float32
    before, added, now,  # residual stream (H,): what it was, what was added, where their sum goes
    norm, shift, after,  # (H,): the norm's weight and bias, the weight of the norm of what was added
    N, eps, cap,
    H: tl.constexpr, HB: tl.constexpr, BN: tl.constexpr, BITS: tl.constexpr,
    NORMED: tl.constexpr, CENTER: tl.constexpr, AFTER: tl.constexpr, BIAS: tl.constexpr, CAP: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """out = weight @ x + bias. Not NORMED: x is ``before``. CAP: softly capped at ``cap``."""
    first = tl.program_id(0)
    i = places(HB, BITS)
    inside = i < H
    begin, end = part_of(N)
    rows = begin + tl.arange(0, BN)
    w, s = rows_of(weight, scales, rows, rows < end, 0, H, HB, BITS)
    coming, coming_s = rows_of(weight, scales, rows + BN, rows + BN < end, 0, H, HB, BITS)
    wait(PDL)
    if NORMED:
        scale = tl.load(norm + i, mask=inside, other=0.0)
        bias_of_norm = tl.load(shift + i, mask=inside, other=0.0) if CENTER else 0.0
        scale_after = tl.load(after + i, mask=inside, other=0.0) if AFTER else 0.0
        x = stream(before, added, i, inside, scale_after, eps, H, AFTER)
        if first == 0:
            tl.store(now + i, x, mask=inside)
        x = scaled(x, scale, bias_of_norm, inside, eps, H, CENTER)
    else:
        x = tl.load(before + i, mask=inside, other=0.0, cache_modifier=".cg")
    xa, xb, xc, xd, less = parts(x, BITS)
    for at in tl.range(begin, end, BN):
        rows = at + tl.arange(0, BN)
        later = rows + 2 * BN
        y = dot(w, s, xa, xb, xc, xd, less, BITS)
        w, s = coming, coming_s
        coming, coming_s = rows_of(weight, scales, later, later < end, 0, H, HB, BITS)
        if BIAS:
            y += tl.load(bias + rows, mask=rows < end, other=0.0)
        if CAP:
            y = (2 * tl.sigmoid(2 * y / cap) - 1) * cap  # tanh
        tl.store(out + rows, y, mask=rows < end)
