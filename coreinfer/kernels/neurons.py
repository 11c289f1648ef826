"""The kept neurons of an MLP, read where they lie: (F, P, H), each neuron's rows and its down column side by side."""

import triton
import triton.language as tl

from coreinfer.kernels.vectors import is_last, part_of, scaled, stream, wait
from coreinfer.kernels.weights import DOWN, UP, by_place, dot, joined, of_word, parts, places, rows_of


@triton.jit
def erf_gelu(x):
    return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))


@triton.jit
def activated(x, ACT: tl.constexpr):
    """ACT: silu, relu, gelu or gelu_pytorch_tanh."""
    if ACT == "silu":
        return x * tl.sigmoid(x)
    if ACT == "relu":
        return tl.maximum(x, 0.0)
    if ACT == "gelu":
        return erf_gelu(x)
    return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))  # 0.5 x (1 + tanh(y)) = x sigmoid(2 y)


@triton.jit
def activate(
    out, neurons, scales, ids, bias,  # (K,) float32; (F, P, H) and scales; (K,) int32; (P - 1, F) float32
    before, added, now, norm, shift, after,  # as ``project``
    K, F, eps,
    H: tl.constexpr, HB: tl.constexpr, P: tl.constexpr, BN: tl.constexpr, BITS: tl.constexpr,
    ACT: tl.constexpr, CENTER: tl.constexpr, AFTER: tl.constexpr, BIAS: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """The activations of the neurons ``ids``: act(gate) * up, or act(fc1)."""
    first = tl.program_id(0)
    i = places(HB, BITS)
    inside = i < H
    begin, end = part_of(K)
    mine = begin + tl.arange(0, BN)
    which = tl.load(ids + mine, mask=mine < end, other=0)
    next_which = tl.load(ids + mine + BN, mask=mine + BN < end, other=0)
    coming = tl.load(ids + mine + 2 * BN, mask=mine + 2 * BN < end, other=0)
    gate, gate_s = rows_of(neurons, scales, which * P, mine < end, 0, H, HB, BITS)
    up, up_s = rows_of(neurons, scales, which * P + P - 2, mine < end, 0, H, HB, BITS)
    next_gate, next_gate_s = rows_of(neurons, scales, next_which * P, mine + BN < end, 0, H, HB, BITS)
    next_up, next_up_s = rows_of(neurons, scales, next_which * P + P - 2, mine + BN < end, 0, H, HB, BITS)
    wait(PDL)
    scale = tl.load(norm + i, mask=inside, other=0.0)
    bias_of_norm = tl.load(shift + i, mask=inside, other=0.0) if CENTER else 0.0
    scale_after = tl.load(after + i, mask=inside, other=0.0) if AFTER else 0.0
    x = stream(before, added, i, inside, scale_after, eps, H, AFTER)
    if first == 0:
        tl.store(now + i, x, mask=inside)
    x = scaled(x, scale, bias_of_norm, inside, eps, H, CENTER)
    xa, xb, xc, xd, less = parts(x, BITS)
    for at in tl.range(begin, end, BN):
        mine = at + tl.arange(0, BN)
        a = dot(gate, gate_s, xa, xb, xc, xd, less, BITS)
        if BIAS:
            a += tl.load(bias + which, mask=mine < end, other=0.0)
        a = activated(a, ACT)
        later = mine + 2 * BN  # loaded while the one before is multiplied; its successor's ids with it
        gate, gate_s = next_gate, next_gate_s
        next_gate, next_gate_s = rows_of(neurons, scales, coming * P, later < end, 0, H, HB, BITS)
        if P == 3:
            u = dot(up, up_s, xa, xb, xc, xd, less, BITS)
            if BIAS:
                u += tl.load(bias + F + which, mask=mine < end, other=0.0)
            a *= u
            up, up_s = next_up, next_up_s
            next_up, next_up_s = rows_of(neurons, scales, coming * P + 1, later < end, 0, H, HB, BITS)
        tl.store(out + mine, a, mask=mine < end)
        which, next_which = next_which, coming
        coming = tl.load(ids + later + BN, mask=later + BN < end, other=0)


@triton.jit
def folded(x, LANES: tl.constexpr):
    """Every LANES-th row of x (n, …) added up: (LANES, …). A thread has those in its own registers, if each holds 16
    bytes of a row.
    """
    if len(x.shape) == 2:
        y = tl.sum(tl.reshape(x, (x.shape[0] // LANES, LANES, x.shape[1])), 0)
    else:
        y = tl.sum(tl.reshape(x, (x.shape[0] // LANES, LANES, x.shape[1], x.shape[2])), 0)
    return y


@triton.jit
def deactivate(
    out, neurons, scales, ids, a, bias,  # (H,) float32; (F, P, H) and scales; (K,) int32; (K,), (H,) float32
    sums, count,  # (S, H) float32; a count for each block of columns
    K,
    H: tl.constexpr, P: tl.constexpr, BF: tl.constexpr, BH: tl.constexpr, S: tl.constexpr, SB: tl.constexpr,
    LANES: tl.constexpr, BITS: tl.constexpr, BIAS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out = sum of a * down column over the neurons ``ids``.

    Program (b, s) does a block of columns, of every S-th BF neurons.
    """
    block, part = tl.program_id(0), tl.program_id(1)
    h = block * BH + tl.arange(0, BH)
    mine = part * BF + tl.arange(0, BF)
    step: tl.constexpr = S * BF
    later = mine + step
    which, next_which = tl.load(ids + mine, mask=mine < K, other=0), tl.load(ids + later, mask=later < K, other=0)
    w, s = rows_of(neurons, scales, which * P + P - 1, mine < K, block * BH, H, BH, BITS)
    next_w, next_s = rows_of(neurons, scales, next_which * P + P - 1, later < K, block * BH, H, BH, BITS)
    coming = tl.load(ids + later + step, mask=later + step < K, other=0)
    wait(PDL)
    active = tl.load(a + mine, mask=mine < K, other=0.0, cache_modifier=".cg")
    next_active = tl.load(a + later, mask=later < K, other=0.0, cache_modifier=".cg")
    across: tl.constexpr = BH // (1 if BITS == 32 else 2 if BITS == 16 else 4)
    ya = tl.zeros((LANES, across) if BITS != 4 else (LANES, BH // 64, 16), tl.float32)
    yb, yc, yd = ya, ya, ya
    less = tl.zeros((BF, BH // 64) if BITS == 4 else (BF,), tl.float32)
    for at in tl.range(part * BF, K, step):
        if BITS == 32:
            ya += folded(w.to(tl.float32) * active[:, None], LANES)
        elif BITS == 16:
            ya += folded(of_word(w, 0, BITS) * active[:, None], LANES)
            yb += folded(of_word(w, 1, BITS) * active[:, None], LANES)
        else:
            by = active * s if BITS == 8 else active[:, None] * s.to(tl.float32)
            less += by
            up = (by * UP)[:, :, None] if BITS == 4 else (by * UP)[:, None]
            ya += folded(of_word(w, 0, BITS) * up, LANES)
            yb += folded(of_word(w, 1, BITS) * up, LANES)
            yc += folded(of_word(w, 2, BITS) * up, LANES)
            yd += folded(of_word(w, 3, BITS) * up, LANES)
        w, s, active = next_w, next_s, next_active
        later = at + 2 * step + tl.arange(0, BF)
        next_w, next_s = rows_of(neurons, scales, coming * P + P - 1, later < K, block * BH, H, BH, BITS)
        next_active = tl.load(a + later, mask=later < K, other=0.0, cache_modifier=".cg")
        coming = tl.load(ids + later + step, mask=later + step < K, other=0)
    za, zb, zc, zd = by_place(tl.sum(ya, 0), tl.sum(yb, 0), tl.sum(yc, 0), tl.sum(yd, 0), BITS)
    total = joined(za, zb, zc, zd, BITS)
    if BITS == 8:
        total = total * DOWN - 128 * tl.sum(less)
    if BITS == 4:
        total = total * DOWN - 8 * tl.sum(less, 0)[:, None, None, None]
    where = block * BH + places(BH, BITS)
    tl.store(sums + part * H + where, total, mask=where < H)
    if is_last(count + block, S):
        n = tl.arange(0, SB)[:, None]
        y = tl.sum(tl.load(sums + n * H + h, mask=(n < S) & (h < H), other=0.0, cache_modifier=".cg"), 0)
        if BIAS:
            y += tl.load(bias + h, mask=h < H, other=0.0)
        tl.store(out + h, y, mask=h < H)
