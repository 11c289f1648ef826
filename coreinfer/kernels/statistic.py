"""The statistic of texts' tokens, from the activations (B, T, F) of some layers: ``coreinfer.statistic``.

``over_tokens`` reads them once. What count and griffin know of a token first, its threshold or its norm,
``core_of_token`` or ``square_of_token`` reads them for once more. Layers lie where they were made: kernels take a table
of their addresses.
"""

import triton
import triton.language as tl


@triton.jit
def at_layer(where, layer, like):
    """The activations of a layer, in the kind of ``like``, which points to some of them."""
    return tl.multiple_of(tl.load(where + layer).to(like.dtype), 16)


@triton.jit
def magnitude(x):
    """Bits of |x|, which as integers are in the order of the sizes."""
    if x.dtype == tl.float32:
        bits = x.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    else:
        bits = x.to(tl.int16, bitcast=True).to(tl.int32) & 0x7FFF
    return bits


@triton.jit
def ones_in(x):
    """How many bits of each word are set; LLVM knows this for the processor's instruction."""
    x = x.to(tl.uint32, bitcast=True)
    x -= (x >> 1) & 0x55555555
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    return ((((x + (x >> 4)) & 0x0F0F0F0F) * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def swapped(w, BY: tl.constexpr):
    """Words whose second axis becomes the last: along it, the lower BY bits in every 2 BY of the first change places
    with the higher ones of the second.
    """
    w = tl.permute(w, (0, 2, 3, 4, 1)) if len(w.shape) == 5 else tl.permute(w, (0, 2, 3, 4, 5, 1))
    a, b = tl.split(w)
    moved = (a ^ (b >> BY)) & (0xFFFFFFFF // ((1 << BY) + 1))
    return tl.join(a ^ moved, b ^ (moved << BY))


@triton.jit
def transposed(w, SIZE: tl.constexpr):
    """Words (M, SIZE), of 32 / SIZE numbers each -> (M, 2, …, 2), whose place p holds bit SIZE - 1 - p of all of them
    (H. S. Warren, Hacker's Delight, 7-3).
    """
    if SIZE == 16:
        w = tl.reshape(w, (w.shape[0], 2, 2, 2, 2))
    else:
        w = swapped(tl.reshape(w, (w.shape[0], 2, 2, 2, 2, 2)), 16)
    return swapped(swapped(swapped(swapped(w, 8), 4), 2), 1)


@triton.jit
def plane(w, PLACE: tl.constexpr, SIZE: tl.constexpr):
    """One place of what is ``transposed``: (M,)."""
    for level in tl.static_range(4 if SIZE == 16 else 5):
        a, b = tl.split(w)
        w = b if (PLACE >> level) & 1 else a
    return w


@triton.jit
def core_of_token(
    out, where, words, valid,  # int32 (L, N); int64 (L,), of words (N, F * SIZE / 32), as ``words``; int8 (N,)
    N, WORDS, k,
    SIZE: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Program (n, l): the bits of token n's k-th largest magnitude. Tokens that do not count are left out.

    From the highest bit down: those that are among the largest by the bits before have this one set, or not; the
    k-th is one of the former if there are as many. Bits of one place of 32 numbers are a word: so all are counted at a
    time, which costs less than to compare each.
    """
    n, layer = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if tl.load(valid + n) != 0:
        a, i = at_layer(where, layer, words), tl.arange(0, SIZE)[None, :] * M + tl.arange(0, M)[:, None]
        w = transposed(tl.load(a + n * WORDS + i, mask=i < WORDS, other=0), SIZE)
        some, threshold = tl.full((M,), -1, tl.int32), tl.zeros((), tl.int32)
        for bit in tl.static_range(SIZE - 2, -1, -1):  # the highest is the sign
            bits = plane(w, SIZE - 1 - bit, SIZE)
            ones = tl.sum(ones_in(some & bits))
            enough = ones >= k
            threshold |= tl.where(enough, 1 << bit, 0)
            some &= bits ^ tl.where(enough, 0, -1)
            k -= tl.where(enough, 0, ones)
        tl.store(out + layer * N + n, threshold)


@triton.jit
def square_of_token(out, where, like, valid, N, F, FB: tl.constexpr):  # (L, N); int64 (L,), of (N, F); int8 (N,)
    """Program (n, l): the sum of token n's squares. Tokens that do not count are left out."""
    n, layer, f = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, FB)
    if tl.load(valid + n) != 0:
        y = tl.load(at_layer(where, layer, like) + n * F + f, mask=f < F, other=0.0).to(tl.float32)
        tl.store(out + layer * N + n, tl.sum(y * y))


@triton.jit
def over_tokens(
    out, where, like, valid, each,  # float32 (L, B, F); int64 (L,), of (B, T, F); int8 (B, T); (L, B, T) of each token
    T, F,
    KIND: tl.constexpr, BT: tl.constexpr, BF: tl.constexpr,
):  # fmt: skip
    """Program (i, b, l): BF neurons of text b, BT tokens at a time. KIND: energy, count or griffin."""
    text, f, some = tl.program_id(1).to(tl.int64), tl.program_id(0) * BF + tl.arange(0, BF), tl.arange(0, BT)
    layer, texts = tl.program_id(2), tl.num_programs(1)
    a = at_layer(where, layer, like)
    each += layer * texts * T
    total = tl.zeros((BT, BF), tl.float32)
    for begin in tl.range(0, T, BT):
        token = text * T + begin + some
        counts = tl.load(valid + token, mask=begin + some < T, other=0) != 0
        x = tl.load(a + token[:, None] * F + f, mask=counts[:, None] & (f < F), other=0.0)
        if KIND == "count":
            least = tl.maximum(tl.load(each + token, mask=counts, other=1), 1)  # 0 is never core
            y = x.to(tl.float32)
            total += (magnitude(x) >= least[:, None]).to(tl.float32) + (y - y)  # NaN where y is no finite number
        else:
            y = x.to(tl.float32)
            y *= y
            if KIND == "griffin":
                y /= tl.maximum(tl.load(each + token, mask=counts, other=1.0), 1.1754943508222875e-38)[:, None]
            total += y
    tl.store(out + (layer * texts + text) * F + f, tl.sum(total, 0), mask=f < F)
