"""Attention of one token: queries and keys turned and normed here, its key and value put into the cache."""

import triton
import triton.language as tl

from coreinfer.kernels.vectors import is_last, wait


@triton.jit
def head_of(x, norm, table, d, eps, D: tl.constexpr, TURNED: tl.constexpr, NORMED: tl.constexpr):
    """A head (D,) normed (Qwen3, Gemma 3), then turned by a row of a rope's table (2, D) in its first TURNED."""
    inside = d < D
    y = tl.load(x + d, mask=inside, other=0.0, cache_modifier=".cg")
    scale = tl.rsqrt(tl.sum(y * y, 0) / D + eps)
    if NORMED:
        y *= scale * tl.load(norm + d, mask=inside, other=0.0)
    if TURNED > 0:
        half: tl.constexpr = TURNED // 2
        other = tl.where(d < half, d + half, tl.where(d < TURNED, d - half, d))
        z = tl.load(x + other, mask=inside, other=0.0, cache_modifier=".cg")
        if NORMED:
            z *= scale * tl.load(norm + other, mask=inside, other=0.0)
        z = tl.where(d < half, -z, z)
        y = y * tl.load(table + d, mask=inside, other=0.0) + z * tl.load(table + D + d, mask=inside, other=0.0)
    return y


@triton.jit
def attend(
    out, qkv, keys, values, table,  # (A,); (A + 2 G,); (C, KV, D) each; (C, 2, D)
    q_norm, k_norm, position,  # (D,) each; int32
    parts, tops, sums, count,  # (HEADS, S, D), (HEADS, S) each, (HEADS,)
    scale, cap, eps, window,
    HEADS: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, DB: tl.constexpr, TURNED: tl.constexpr,
    NORMED: tl.constexpr, CAP: tl.constexpr, CHUNK: tl.constexpr, S: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Program (h, s): a query head over CHUNK positions of the cache; the last of a head's programs adds them up."""
    h, s = tl.program_id(0), tl.program_id(1)
    group: tl.constexpr = HEADS // KV
    g = h // group
    d = tl.arange(0, DB)
    inside = d < D
    wait(PDL)
    at = tl.load(position)
    since = tl.maximum(0, at + 1 - window)
    if (s * CHUNK <= at) & ((s + 1) * CHUNK > since):
        turns = table + at.to(tl.int64) * 2 * D
        q = head_of(qkv + h * D, q_norm, turns, d, eps, D, TURNED, NORMED)
        k = head_of(qkv + (HEADS + g) * D, k_norm, turns, d, eps, D, TURNED, NORMED).to(keys.dtype.element_ty)
        v = tl.load(qkv + (HEADS + KV + g) * D + d, mask=inside, other=0.0, cache_modifier=".cg").to(k.dtype)
        j = s * CHUNK + tl.arange(0, CHUNK)
        old = (j < at) & (j >= since)
        cached = (j.to(tl.int64)[:, None] * KV + g) * D + d
        mine = (j == at)[:, None]
        kt = tl.where(mine, k, tl.load(keys + cached, mask=old[:, None] & inside, other=0.0)).to(tl.float32)
        vt = tl.where(mine, v, tl.load(values + cached, mask=old[:, None] & inside, other=0.0)).to(tl.float32)
        score = tl.sum(kt * q, 1) * scale
        if CAP:
            score = (2 * tl.sigmoid(2 * score / cap) - 1) * cap
        score = tl.where(old | (j == at), score, float("-inf"))
        top = tl.max(score, 0)
        weight = tl.exp(score - top)
        tl.store(parts + (h * S + s) * D + d, tl.sum(weight[:, None] * vt, 0), mask=inside)
        tl.store(tops + h * S + s, top)
        tl.store(sums + h * S + s, tl.sum(weight, 0))
        if (at < (s + 1) * CHUNK) & (h % group == 0):
            here = (at.to(tl.int64) * KV + g) * D + d
            tl.store(keys + here, k, mask=inside)
            tl.store(values + here, v, mask=inside)
        begin, end = since // CHUNK, at // CHUNK + 1
        if is_last(count + h, end - begin):
            best, total, y = -float("inf"), 0.0, tl.zeros((DB,), tl.float32)
            for other in tl.range(begin, end):
                top = tl.load(tops + h * S + other, cache_modifier=".cg")
                new = tl.maximum(best, top)
                old_part, new_part = tl.exp(best - new), tl.exp(top - new)
                part = tl.load(parts + (h * S + other) * D + d, mask=inside, other=0.0, cache_modifier=".cg")
                y = y * old_part + part * new_part
                total = total * old_part + tl.load(sums + h * S + other, cache_modifier=".cg") * new_part
                best = new
            tl.store(out + h * D + d, y / total, mask=inside)
