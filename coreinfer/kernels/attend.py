"""Attention of a step's tokens: queries and keys turned and normed here, keys and values put into the cache."""

import triton
import triton.language as tl

from coreinfer.kernels.vectors import is_last, wait


@triton.jit
def partner(d, TURNED: tl.constexpr):
    """The dimension that a rope mixes with d, which is d itself beyond those that turn."""
    half: tl.constexpr = TURNED // 2
    return tl.where(d < half, d + half, tl.where(d < TURNED, d - half, d))


@triton.jit
def head_of(
    x, norm, norm_other, cos, sin, d, eps, D: tl.constexpr, TURNED: tl.constexpr, NORMED: tl.constexpr
):  # fmt: skip
    """A head (D,) normed (Qwen3, Gemma 3), then turned by a rope in its first TURNED dimensions."""
    inside = d < D
    y = tl.load(x + d, mask=inside, other=0.0, cache_modifier=".cg")
    if TURNED > 0:
        z = tl.load(x + partner(d, TURNED), mask=inside, other=0.0, cache_modifier=".cg")
    if NORMED:
        scale = tl.rsqrt(tl.sum(y * y, 0) / D + eps)
        y *= scale * norm
        if TURNED > 0:
            z *= scale * norm_other
    if TURNED > 0:
        y = y * cos + tl.where(d < TURNED // 2, -z, z) * sin
    return y


@triton.jit
def remember(
    qkv, keys, values, table, k_norm, position, slot, used, C, eps,  # as ``attend``
    HEADS: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, DB: tl.constexpr, TURNED: tl.constexpr,
    NORMED: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Program (g, r): a key head and a value head of row r into the caches, before any row attends to them."""
    g, row = tl.program_id(0), tl.program_id(1)
    d = tl.arange(0, DB)
    inside = d < D
    wait(PDL)
    if row < tl.load(used):
        at = tl.load(position + row)
        qkv += row * (HEADS + 2 * KV) * D
        turns = table + at.to(tl.int64) * 2 * D
        cos, sin, norm, other = 1.0, 0.0, 1.0, 1.0
        if TURNED > 0:
            cos = tl.load(turns + d, mask=inside, other=0.0)
            sin = tl.load(turns + D + d, mask=inside, other=0.0)
        if NORMED:
            norm = tl.load(k_norm + d, mask=inside, other=0.0)
            other = tl.load(k_norm + partner(d, TURNED), mask=inside, other=0.0)
        here = ((tl.load(slot + row).to(tl.int64) * C + at) * KV + g) * D + d
        k = head_of(qkv + (HEADS + g) * D, norm, other, cos, sin, d, eps, D, TURNED, NORMED)
        v = tl.load(qkv + (HEADS + KV + g) * D + d, mask=inside, other=0.0, cache_modifier=".cg")
        tl.store(keys + here, k.to(keys.dtype.element_ty), mask=inside)
        tl.store(values + here, v.to(values.dtype.element_ty), mask=inside)


@triton.jit
def attend(
    out, qkv, keys, values, table,  # (R, A); (R, A + 2 G); (S, C, KV, D) each; (C, 2, D)
    q_norm, k_norm, position, slot, used, C,  # (D,) each; int32 (R,) each, and how many rows count
    parts, tops, sums, count,  # (R, HEADS, S, D), (R, HEADS, S) each, (R, HEADS)
    scale, cap, eps, window,
    OWN: tl.constexpr, HEADS: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, DB: tl.constexpr, TURNED: tl.constexpr,
    NORMED: tl.constexpr, CAP: tl.constexpr, CHUNK: tl.constexpr, S: tl.constexpr, TOGETHER: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Program (h, s, r): a query head of row r over CHUNK positions of the cache; the last of a head's programs adds
    them up. OWN: the row's key and value go into the cache here; else ``remember`` has put those of all rows there.
    """
    h, s, row = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if row >= tl.load(used):
        return
    group: tl.constexpr = HEADS // KV
    g = h // group
    d = tl.arange(0, DB)
    inside = d < D
    at = tl.load(position + row)
    since = tl.maximum(0, at + 1 - window)
    held = tl.load(slot + row).to(tl.int64) * C * KV * D
    out, qkv, count = out + row * HEADS * D, qkv + row * (HEADS + 2 * KV) * D, count + row * HEADS
    keys, values = keys + held, values + held
    parts, tops, sums = parts + row * HEADS * S * D, tops + row * HEADS * S, sums + row * HEADS * S
    begin, end = since // CHUNK, at // CHUNK + 1
    if (s >= begin) & (s < end):  # the others end at once, and leave their place to the next kernel
        j = s * CHUNK + tl.arange(0, CHUNK)
        old = (j < at + (0 if OWN else 1)) & (j >= since)
        cached = (j.to(tl.int64)[:, None] * KV + g) * D + d
        if not OWN:
            wait(PDL)
        kt = tl.load(keys + cached, mask=old[:, None] & inside, other=0.0)  # of earlier steps: no need to wait for them
        vt = tl.load(values + cached, mask=old[:, None] & inside, other=0.0)
        turns = table + at.to(tl.int64) * 2 * D
        cos, sin, nq, nq_other, nk, nk_other = 1.0, 0.0, 1.0, 1.0, 1.0, 1.0
        if TURNED > 0:
            cos = tl.load(turns + d, mask=inside, other=0.0)
            sin = tl.load(turns + D + d, mask=inside, other=0.0)
        if NORMED:
            nq, nk = tl.load(q_norm + d, mask=inside, other=0.0), tl.load(k_norm + d, mask=inside, other=0.0)
            nq_other = tl.load(q_norm + partner(d, TURNED), mask=inside, other=0.0)
            nk_other = tl.load(k_norm + partner(d, TURNED), mask=inside, other=0.0)
        if OWN:
            wait(PDL)
        q = head_of(qkv + h * D, nq, nq_other, cos, sin, d, eps, D, TURNED, NORMED)
        if OWN:
            k = head_of(qkv + (HEADS + g) * D, nk, nk_other, cos, sin, d, eps, D, TURNED, NORMED).to(kt.dtype)
            v = tl.load(qkv + (HEADS + KV + g) * D + d, mask=inside, other=0.0, cache_modifier=".cg").to(kt.dtype)
            mine = (j == at)[:, None]
            kt, vt = tl.where(mine, k, kt), tl.where(mine, v, vt)
        score = tl.sum(kt.to(tl.float32) * q, 1) * scale
        if CAP:
            score = (2 * tl.sigmoid(2 * score / cap) - 1) * cap
        score = tl.where(old | (j == at), score, float("-inf"))
        top = tl.max(score, 0)
        weight = tl.exp(score - top)
        y, total = tl.sum(weight[:, None] * vt.to(tl.float32), 0), tl.sum(weight, 0)
        if OWN:  # noqa: SIM102, decided when it compiles, and the next when it runs
            if (s == end - 1) & (h % group == 0):
                here = (at.to(tl.int64) * KV + g) * D + d
                tl.store(keys + here, k, mask=inside)
                tl.store(values + here, v, mask=inside)
        if end - begin == 1:
            tl.store(out + h * D + d, y / total, mask=inside)
        else:
            tl.store(parts + (h * S + s) * D + d, y, mask=inside)
            tl.store(tops + h * S + s, top)
            tl.store(sums + h * S + s, total)
            if is_last(count + h, end - begin):
                best, whole, sum_of = -float("inf"), 0.0, tl.zeros((DB,), tl.float32)
                for other in tl.range(begin, end, TOGETHER):
                    n = other + tl.arange(0, TOGETHER)
                    there = n < end
                    some = tl.load(tops + h * S + n, mask=there, other=float("-inf"), cache_modifier=".cg")
                    summed = tl.load(sums + h * S + n, mask=there, other=0.0, cache_modifier=".cg")
                    places = (h * S + n)[:, None] * D + d
                    part = tl.load(parts + places, mask=there[:, None] & inside, other=0.0, cache_modifier=".cg")
                    new = tl.maximum(best, tl.max(some, 0))
                    old_part, new_part = tl.exp(best - new), tl.exp(some - new)
                    sum_of = sum_of * old_part + tl.sum(part * new_part[:, None], 0)
                    whole = whole * old_part + tl.sum(summed * new_part, 0)
                    best = new
                tl.store(out + h * D + d, sum_of / whole, mask=inside)
