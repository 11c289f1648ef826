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
    gate = row_of(neurons, which, i, inside, mine < K, 0, P, H)
    up = row_of(neurons, which, i, inside, mine < K, P - 2, P, H)
    wait(PDL)
    x = stream(before, added, after, i, inside, eps, H, AFTER)
    if first == 0:
        tl.store(now + i, x, mask=inside)
    x = scaled(x, norm, shift, i, inside, eps, H, CENTER)
    for block in tl.range(first, tl.cdiv(K, BN), step):
        mine = block * BN + tl.arange(0, BN)
        later = mine + step * BN
        coming = tl.load(ids + later, mask=later < K, other=0)
        next_gate = row_of(neurons, coming, i, inside, later < K, 0, P, H)
        g = tl.sum(gate.to(tl.float32) * x, 1)
        if BIAS:
            g += tl.load(bias + which, mask=mine < K, other=0.0)
        a = activated(g, ACT)
        if P == 3:
            next_up = row_of(neurons, coming, i, inside, later < K, 1, P, H)
            u = tl.sum(up.to(tl.float32) * x, 1)
            if BIAS:
                u += tl.load(bias + F + which, mask=mine < K, other=0.0)
            a *= u
            up = next_up
        tl.store(out + mine, a, mask=mine < K)
        which, gate = coming, next_gate


@triton.jit
def columns_of(neurons, ids, mine, end, h, H: tl.constexpr, P: tl.constexpr):
    """A block of the down columns of neurons ``mine`` .. < end of the kept ones: (BF, BH)."""
    which = tl.load(ids + mine, mask=mine < end, other=0)
    at = (which.to(tl.int64) * P + P - 1) * H
    return tl.load(neurons + at[:, None] + h, mask=(mine < end)[:, None] & (h < H), other=0.0)


@triton.jit
def deactivate(
    out, neurons, ids, a, bias,  # (H,) float32; (F, P, H); (K,) int32; (K,) float32; (H,) float32
    parts, count,  # (S, H) float32; a count for each block of columns
    K, S,
    H: tl.constexpr, P: tl.constexpr, BF: tl.constexpr, BH: tl.constexpr, BIAS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out = sum of a * down column over the neurons ``ids``; program (b, s) does a block of columns, a part of them."""
    block, part = tl.program_id(0), tl.program_id(1)
    h = block * BH + tl.arange(0, BH)
    each = tl.cdiv(tl.cdiv(K, S), BF) * BF
    begin, end = part * each, tl.minimum(K, (part + 1) * each)
    w = columns_of(neurons, ids, begin + tl.arange(0, BF), end, h, H, P)
    wait(PDL)
    total = tl.zeros((BF, BH), tl.float32)
    for at in tl.range(begin, end, BF):
        mine = at + tl.arange(0, BF)
        coming = columns_of(neurons, ids, mine + BF, end, h, H, P)
        active = tl.load(a + mine, mask=mine < end, other=0.0, cache_modifier=".cg")
        total += w.to(tl.float32) * active[:, None]
        w = coming
    y = tl.sum(total, 0)
    tl.store(parts + part * H + h, y, mask=h < H)
    if is_last(count + block, S):
        y = tl.zeros((BH,), tl.float32)
        for other in tl.range(S):
            y += tl.load(parts + other * H + h, mask=h < H, other=0.0, cache_modifier=".cg")
        if BIAS:
            y += tl.load(bias + h, mask=h < H, other=0.0)
        tl.store(out + h, y, mask=h < H)
