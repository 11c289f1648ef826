"""The kept neurons of an MLP, read where they lie: (F, P, H), each neuron's rows and its down column side by side."""

import triton
import triton.language as tl

from coreinfer.kernels.vectors import is_last, scaled, stream, wait


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
def row_of(neurons, ids, i, inside, there, PART: tl.constexpr, P: tl.constexpr, H: tl.constexpr):
    """Row PART of each of the neurons ``ids`` (n,) that are ``there``: (n, HB)."""
    at = (ids.to(tl.int64) * P + PART) * H
    return tl.load(neurons + at[:, None] + i, mask=there[:, None] & inside, other=0.0)


@triton.jit
def activate(
    out, neurons, ids, bias,  # (K,) float32; (F, P, H); (K,) int32; (P - 1, F) float32
    before, added, now, norm, shift, after,  # as ``project``
    K, F, eps,
    H: tl.constexpr, HB: tl.constexpr, P: tl.constexpr, BN: tl.constexpr, ACT: tl.constexpr,
    CENTER: tl.constexpr, AFTER: tl.constexpr, BIAS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """The activations of the neurons ``ids``: act(gate) * up, or act(fc1)."""
    first, step = tl.program_id(0), tl.num_programs(0)
    i = tl.arange(0, HB)
    inside = i < H
    mine = first * BN + tl.arange(0, BN)
    which = tl.load(ids + mine, mask=mine < K, other=0)
    coming = tl.load(ids + mine + step * BN, mask=mine + step * BN < K, other=0)
    gate = row_of(neurons, which, i, inside, mine < K, 0, P, H)
    up = row_of(neurons, which, i, inside, mine < K, P - 2, P, H)
    scale = tl.load(norm + i, mask=inside, other=0.0)
    bias_of_norm = tl.load(shift + i, mask=inside, other=0.0) if CENTER else 0.0
    scale_after = tl.load(after + i, mask=inside, other=0.0) if AFTER else 0.0
    wait(PDL)
    x = stream(before, added, i, inside, scale_after, eps, H, AFTER)
    if first == 0:
        tl.store(now + i, x, mask=inside)
    x = scaled(x, scale, bias_of_norm, inside, eps, H, CENTER)
    for block in tl.range(first, tl.cdiv(K, BN), step):
        mine = block * BN + tl.arange(0, BN)
        later = mine + step * BN  # its rows are loaded before these are multiplied, its successor's ids with them
        next_gate = row_of(neurons, coming, i, inside, later < K, 0, P, H)
        if P == 3:
            next_up = row_of(neurons, coming, i, inside, later < K, 1, P, H)
        after_next = tl.load(ids + later + step * BN, mask=later + step * BN < K, other=0)
        g = tl.sum(gate.to(tl.float32) * x, 1)
        if BIAS:
            g += tl.load(bias + which, mask=mine < K, other=0.0)
        a = activated(g, ACT)
        if P == 3:
            u = tl.sum(up.to(tl.float32) * x, 1)
            if BIAS:
                u += tl.load(bias + F + which, mask=mine < K, other=0.0)
            a *= u
            up = next_up
        tl.store(out + mine, a, mask=mine < K)
        which, coming, gate = coming, after_next, next_gate


@triton.jit
def columns_of(neurons, which, there, h, H: tl.constexpr, P: tl.constexpr):
    """A block of the down columns of the neurons ``which`` (BF,) that are ``there``: (BF, BH)."""
    at = (which.to(tl.int64) * P + P - 1) * H
    return tl.load(neurons + at[:, None] + h, mask=there[:, None] & (h < H), other=0.0)


@triton.jit
def deactivate(
    out, neurons, ids, a, bias,  # (H,) float32; (F, P, H); (K,) int32; (K,) float32; (H,) float32
    parts, count,  # (S, H) float32; a count for each block of columns
    K,
    H: tl.constexpr, P: tl.constexpr, BF: tl.constexpr, BH: tl.constexpr, S: tl.constexpr, SB: tl.constexpr,
    BIAS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out = sum of a * down column over the neurons ``ids``.

    Program (b, s) does a block of columns, of every S-th BF neurons.
    """
    block, part = tl.program_id(0), tl.program_id(1)
    h = block * BH + tl.arange(0, BH)
    mine = part * BF + tl.arange(0, BF)
    step: tl.constexpr = S * BF
    w = columns_of(neurons, tl.load(ids + mine, mask=mine < K, other=0), mine < K, h, H, P)
    coming = tl.load(ids + mine + step, mask=mine + step < K, other=0)
    wait(PDL)
    active = tl.load(a + mine, mask=mine < K, other=0.0, cache_modifier=".cg")
    total = tl.zeros((BF, BH), tl.float32)
    for at in tl.range(part * BF, K, step):
        mine = at + step + tl.arange(0, BF)
        later = columns_of(neurons, coming, mine < K, h, H, P)
        later_active = tl.load(a + mine, mask=mine < K, other=0.0, cache_modifier=".cg")
        coming = tl.load(ids + mine + step, mask=mine + step < K, other=0)
        total += w.to(tl.float32) * active[:, None]
        w, active = later, later_active
    tl.store(parts + part * H + h, tl.sum(total, 0), mask=h < H)
    if is_last(count + block, S):
        n = tl.arange(0, SB)[:, None]
        y = tl.sum(tl.load(parts + n * H + h, mask=(n < S) & (h < H), other=0.0, cache_modifier=".cg"), 0)
        if BIAS:
            y += tl.load(bias + h, mask=h < H, other=0.0)
        tl.store(out + h, y, mask=h < H)
