"""The two ends of a step: the token's embedding, and the next token."""

import triton
import triton.language as tl

from coreinfer.kernels.vectors import is_last, wait


@triton.jit
def embed(
    out, nothing, embedding, places, token, position, scale, H: tl.constexpr, HB: tl.constexpr, PLACES: tl.constexpr
):
    """out (H,) = embedding[token] * scale, and with PLACES a learned position; ``nothing`` (H,) was added to it yet."""
    i = tl.arange(0, HB)
    inside = i < H
    x = tl.load(embedding + tl.load(token).to(tl.int64) * H + i, mask=inside, other=0.0).to(tl.float32) * scale
    if PLACES:
        x += tl.load(places + tl.load(position).to(tl.int64) * H + i, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + i, x, mask=inside)
    tl.store(nothing + i, tl.zeros((HB,), tl.float32), mask=inside)


@triton.jit
def pick(
    logits, V, temperature, seed, token, position, history,  # (V,); scalars on the device; int32 (C + 1,)
    best, where, count, BLOCK: tl.constexpr, PROGRAMS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """The likeliest token, the first of equals; above temperature 0 one drawn by its probability (Gumbel's maximum).

    It becomes the step's next input, at the next position.
    """
    first, n = tl.program_id(0), tl.arange(0, BLOCK)
    wait(PDL)
    at, heat = tl.load(position), tl.load(temperature)
    top, of = tl.full((BLOCK,), float("-inf"), tl.float32), tl.zeros((BLOCK,), tl.int32)
    for begin in tl.range(first * BLOCK, V, PROGRAMS * BLOCK):
        i = begin + n
        x = tl.load(logits + i, mask=i < V, other=float("-inf"), cache_modifier=".cg")
        if heat > 0:
            chance = tl.maximum(tl.rand(tl.load(seed).to(tl.int64) * 1000003 + at, i), 1e-12)
            x = x / heat - tl.log(-tl.log(chance))
        of = tl.where(x > top, i, of)
        top = tl.maximum(x, top)
    most = tl.max(top, 0)
    tl.store(best + first, most)
    tl.store(where + first, tl.min(tl.where(top == most, of, V), 0))
    if is_last(count, PROGRAMS):
        p = tl.arange(0, PROGRAMS)
        all_best = tl.load(best + p, cache_modifier=".cg")
        found = tl.min(tl.where(all_best == tl.max(all_best, 0), tl.load(where + p, cache_modifier=".cg"), V), 0)
        tl.store(token, found)
        tl.store(history + at + 1, found)
        tl.store(position, at + 1)
