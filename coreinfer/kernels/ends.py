"""The two ends of a step: each row's embedding, and its next token."""

import triton
import triton.language as tl

from coreinfer.kernels.vectors import is_last, wait


@triton.jit
def embed(
    out, nothing, embedding, places, token, position, used, scale,
    H: tl.constexpr, HB: tl.constexpr, PLACES: tl.constexpr,
):  # fmt: skip
    """Program r: out (R, H) = embedding[token] * scale, and with PLACES a learned position; ``nothing`` (R, H) was
    added to it yet.
    """
    row, i = tl.program_id(0), tl.arange(0, HB)
    if row >= tl.load(used):
        return
    inside = i < H
    x = tl.load(embedding + tl.load(token + row).to(tl.int64) * H + i, mask=inside, other=0.0).to(tl.float32) * scale
    if PLACES:
        x += tl.load(places + tl.load(position + row).to(tl.int64) * H + i, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * H + i, x, mask=inside)
    tl.store(nothing + row * H + i, tl.zeros((HB,), tl.float32), mask=inside)


@triton.jit
def pick(
    logits, V, temperature, seed, token, position, slot, picked, used,  # (R, V); (R,) each; how many rows count
    history, C, best, where, count,  # int32 (S, C + 1); (R, PROGRAMS) each; (R,)
    BLOCK: tl.constexpr, PROGRAMS: tl.constexpr, ADVANCE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """The likeliest token, the first of equals; above temperature 0 one drawn by its probability (Gumbel's maximum).

    Program (p, r) looks at every PROGRAMS-th block of row r. With ADVANCE the token becomes the row's next input, at
    the next position.
    """
    first, row, n = tl.program_id(0), tl.program_id(1), tl.arange(0, BLOCK)
    wait(PDL)
    if row >= tl.load(used):
        return
    logits, best, where = logits + row.to(tl.int64) * V, best + row * PROGRAMS, where + row * PROGRAMS
    at, heat = tl.load(position + row), tl.load(temperature + row)
    top, of = tl.full((BLOCK,), float("-inf"), tl.float32), tl.zeros((BLOCK,), tl.int32)
    for begin in tl.range(first * BLOCK, V, PROGRAMS * BLOCK):
        i = begin + n
        x = tl.load(logits + i, mask=i < V, other=float("-inf"), cache_modifier=".cg")
        if heat > 0:
            chance = tl.maximum(tl.rand(tl.load(seed + row).to(tl.int64) * 1000003 + at, i), 1e-12)
            x = x / heat - tl.log(-tl.log(chance))
        of = tl.where(x > top, i, of)
        top = tl.maximum(x, top)
    most = tl.max(top, 0)
    tl.store(best + first, most)
    tl.store(where + first, tl.min(tl.where(top == most, of, V), 0))
    if is_last(count + row, PROGRAMS):
        p = tl.arange(0, PROGRAMS)
        all_best = tl.load(best + p, cache_modifier=".cg")
        found = tl.min(tl.where(all_best == tl.max(all_best, 0), tl.load(where + p, cache_modifier=".cg"), V), 0)
        tl.store(picked + row, found)
        if ADVANCE:
            tl.store(token + row, found)
            tl.store(history + tl.load(slot + row) * (C + 1) + at + 1, found)
            tl.store(position + row, at + 1)
