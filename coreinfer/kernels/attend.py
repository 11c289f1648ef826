"""Attention of a step's tokens: queries and keys turned and normed here, keys and values put into the cache."""

import triton
import triton.language as tl

from coreinfer.kernels.vectors import is_last, put, wait
from coreinfer.kernels.weights import of_word, places, rows_of


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
        scale = tl.rsqrt(tl.sum(y * y) / D + eps)
        y *= scale * norm
        if TURNED > 0:
            z *= scale * norm_other
    if TURNED > 0:
        y = y * cos + tl.where(d < TURNED // 2, -z, z) * sin
    return y


@triton.jit
def capped(score, cap, CAP: tl.constexpr):
    """cap * tanh(score / cap), where the model has a cap."""
    return (2 * tl.sigmoid(2 * score / cap) - 1) * cap if CAP else score


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
def likeness(keys, q, BITS: tl.constexpr):
    """Rows of keys times a query: (n,)."""
    if BITS == 16:
        a, b = tl.split(q)
        y = tl.sum(of_word(keys, 0, BITS) * a + of_word(keys, 1, BITS) * b, 1)
    else:
        y = tl.sum(keys.to(tl.float32) * q, 1)
    return y


@triton.jit
def mixture(values, weight, BITS: tl.constexpr):
    """Rows of values, each times its weight, summed: a head."""
    if BITS == 16:
        a = tl.sum(of_word(values, 0, BITS) * weight[:, None], 0)
        y = tl.join(a, tl.sum(of_word(values, 1, BITS) * weight[:, None], 0))
    else:
        y = tl.sum(values.to(tl.float32) * weight[:, None], 0)
    return y


@triton.jit
def add_up(
    out, parts, tops, sums, begin, end,  # of one head: (D,); (S, D), (S,) each
    D: tl.constexpr, DB: tl.constexpr, TOGETHER: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    """out = the parts from ``begin`` to ``end``, weighed by what each one's softmax comes to."""
    d = tl.arange(0, DB)
    inside = d < D
    best, whole, y = -float("inf"), 0.0, tl.zeros((DB,), tl.float32)
    for first in tl.range(begin, end, TOGETHER):
        n = first + tl.arange(0, TOGETHER)
        there = n < end
        top = tl.load(tops + n, mask=there, other=float("-inf"), cache_modifier=".cg")
        total = tl.load(sums + n, mask=there, other=0.0, cache_modifier=".cg")
        where = there[:, None] & inside
        part = tl.load(parts + n[:, None] * D + d, mask=where, other=0.0, cache_modifier=".cg")
        new = tl.maximum(best, tl.max(top, 0))
        old_share, share = tl.exp(best - new), tl.exp(top - new)
        y = y * old_share + tl.sum(part * share[:, None], 0)
        whole = whole * old_share + tl.sum(total * share, 0)
        best = new
    put(out + d, y / whole, inside, LOW)


@triton.jit
def attend(
    out, qkv, keys, values, cached_keys, cached_values, table,  # (R, A); (R, A + 2 G); (S, C, KV, D) each; (C, 2, D)
    q_norm, k_norm, position, slot, used, C,  # (D,) each; int32 (R,) each, and how many rows count
    parts, tops, sums, count,  # (R, HEADS, S, D), (R, HEADS, S) each, (R, HEADS)
    scale, cap, eps, window,
    OWN: tl.constexpr, HEADS: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, DB: tl.constexpr, TURNED: tl.constexpr,
    NORMED: tl.constexpr, CAP: tl.constexpr, CHUNK: tl.constexpr, S: tl.constexpr, TOGETHER: tl.constexpr,
    BITS: tl.constexpr, LOW: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Program (h, s, r): a query head of row r over CHUNK positions of the cache; the last of a head's programs adds
    them up. OWN: the row's key and value go into the cache here; else ``remember`` has put those of all rows there.

    LOW: as ``put``. ``cached_keys``, ``cached_values``: the caches again, as ``weights`` reads BITS.
    """
    h, s, row = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if row >= tl.load(used):
        return
    group: tl.constexpr = HEADS // KV
    g = h // group
    d = places(DB, BITS)
    inside = d < D
    at = tl.load(position + row)
    since = tl.maximum(0, at + 1 - window)
    held = tl.load(slot + row).to(tl.int64) * C
    out, qkv, count = out + row * HEADS * D, qkv + row * (HEADS + 2 * KV) * D, count + row * HEADS
    parts, tops, sums = parts + (row * HEADS + h) * S * D, tops + (row * HEADS + h) * S, sums + (row * HEADS + h) * S
    begin, end = since // CHUNK, at // CHUNK + 1
    if (s >= begin) & (s < end):  # the others end at once, and leave their place to the next kernel
        j = s * CHUNK + tl.arange(0, CHUNK)
        old = (j < at + (0 if OWN else 1)) & (j >= since)  # what the cache holds
        cached = (held + j) * KV + g
        if not OWN:
            wait(PDL)
        kt, _ = rows_of(cached_keys, cached_keys, cached, old, 0, D, DB, BITS)  # of earlier steps: no need to wait
        vt, _ = rows_of(cached_values, cached_values, cached, old, 0, D, DB, BITS)
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
        score = capped(likeness(kt, q, BITS) * scale, cap, CAP)
        score = tl.where(old, score, float("-inf"))
        top = tl.max(score, 0)
        if OWN:  # what is to be put into the cache, rounded as there; the last program's alone counts
            k = head_of(qkv + (HEADS + g) * D, nk, nk_other, cos, sin, d, eps, D, TURNED, NORMED)
            v = tl.load(qkv + (HEADS + KV + g) * D + d, mask=inside, other=0.0, cache_modifier=".cg")
            k, v = k.to(keys.dtype.element_ty), v.to(keys.dtype.element_ty)
            own = capped(tl.sum(k.to(tl.float32) * q) * scale, cap, CAP)
            own = tl.where(s == end - 1, own, float("-inf"))
            top = tl.maximum(top, own)
        weight = tl.exp(score - top)
        y, total = mixture(vt, weight, BITS), tl.sum(weight, 0)
        if OWN:
            y += tl.exp(own - top) * v.to(tl.float32)
            total += tl.exp(own - top)
            if (s == end - 1) & (h % group == 0):
                here = ((held + at) * KV + g) * D + d
                tl.store(keys + here, k, mask=inside)
                tl.store(values + here, v, mask=inside)
        if end - begin == 1:
            put(out + h * D + d, y / total, inside, LOW)
        else:
            tl.store(parts + s * D + d, y, mask=inside)
            tl.store(tops + s, top)
            tl.store(sums + s, total)
            if is_last(count + h, end - begin):
                add_up(out + h * D, parts, tops, sums, begin, end, D, DB, TOGETHER, LOW)
