"""The statistic of texts' tokens, from the activations (B, T, F) of some layers: ``coreinfer.statistic``.

``over_tokens`` adds up squares; for griffin, ``square_of_token`` reads all once more before it. For count,
``core_of_token`` reads them once, and ``over_cores`` adds up what it found. Layers lie where they were made: kernels
take a table of their addresses.
"""

import triton
import triton.language as tl


@triton.jit
def at_layer(where, layer, like):
    """The activations of a layer, in the kind of ``like``, which points to some of them."""
    return tl.multiple_of(tl.load(where + layer).to(like.dtype), 16)


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


@triton.jit(do_not_specialize=["k"])  # 1 would be a constant, which cannot be counted down
def core_of_token(
    out, bad, where, words, valid,  # int32 (L, N, M), (L, B, M); int64 (L,), of words (N, F * SIZE / 32); int8 (N,)
    N, T, WORDS, k,
    SIZE: tl.constexpr, EXPONENT: tl.constexpr, M: tl.constexpr,  # M: words of a bit for each neuron, a power of 2
):  # fmt: skip
    """Program (n, l): which neurons of token n are core, those that reach its k-th largest magnitude and are not 0, a
    bit each (``neuron_of``); and in ``bad``, 0 before, which of its text are no finite numbers. Tokens that do not
    count are left out.

    From the highest bit down: those that may be the k-th by the bits before have this one set, or not; if those that
    have it are k or more, the k-th is one of them, otherwise all of them are above it. Bits of one place of 32 numbers
    are a word: so all are counted at a time, which costs less than to compare each, and what is core takes a 16th of
    the bytes, which are then read in place of the activations.
    """
    n, layer, m = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, M)
    if tl.load(valid + n) != 0:
        a, i = at_layer(where, layer, words), tl.arange(0, SIZE)[None, :] * M + m[:, None]
        w = transposed(tl.load(a + n * WORDS + i, mask=i < WORDS, other=0), SIZE)
        some, above, present = tl.full((M,), -1, tl.int32), tl.zeros((M,), tl.int32), tl.zeros((M,), tl.int32)
        endless = some
        for bit in tl.static_range(SIZE - 2, -1, -1):  # the highest is the sign
            bits = plane(w, SIZE - 1 - bit, SIZE)
            upper = some & bits
            ones = tl.sum(ones_in(upper))
            enough = ones >= k
            some = tl.where(enough, upper, some ^ upper)
            above |= tl.where(enough, 0, upper)
            k -= tl.where(enough, 0, ones)
            present |= bits
            if bit >= EXPONENT:
                endless &= bits
        tl.store(out + (layer * N + n) * M + m, (above | some) & present)
        tl.atomic_or(bad + (layer * (N // T) + n // T) * M + m, endless, mask=endless != 0, sem="relaxed")


@triton.jit
def neuron_of(m, bit, SIZE: tl.constexpr, M: tl.constexpr):
    """Whose is a bit of the m-th word: of word j * M + m, at j = SIZE - 1 - bit in each part of SIZE bits."""
    return 32 // SIZE * ((SIZE - 1 - bit % SIZE) * M + m) + bit // SIZE


@triton.jit
def over_cores(
    out, cores, bad, valid,  # float32 (L, B, F), 0 before; int32 (L, B, T, M), (L, B, M); int8 (B, T)
    T, F,
    SIZE: tl.constexpr, M: tl.constexpr, MB: tl.constexpr, TB: tl.constexpr,
):  # fmt: skip
    """Program (i, b, l): adds up in how many of TB tokens of text b the neurons of MB words are core."""
    text, layer = tl.program_id(1).to(tl.int64), tl.program_id(2)
    of_text = layer * tl.num_programs(1) + text
    m = tl.program_id(0) % (M // MB) * MB + tl.arange(0, MB)
    first, bit = tl.program_id(0) // (M // MB) * TB, 31 - tl.arange(0, 32)[None, :]
    total = tl.zeros((MB, 32), tl.int32)
    for begin in tl.range(first, tl.minimum(first + TB, T), 32):
        token = begin + tl.arange(0, 32)
        counts = tl.load(valid + text * T + token, mask=token < T, other=0) != 0
        w = tl.load(cores + (of_text * T + token)[None, :] * M + m[:, None], mask=counts[None, :], other=0)
        total += tl.reshape(ones_in(transposed(w, 32)), (MB, 32))
    endless = (tl.load(bad + of_text * M + m)[:, None] >> bit) & 1
    f = neuron_of(m[:, None], bit, SIZE, M)
    found = tl.where(endless != 0, float("nan"), total.to(tl.float32))
    tl.atomic_add(out + of_text * F + f, found, mask=f < F, sem="relaxed")  # whole numbers: in any order the same


@triton.jit
def square_of_token(out, where, like, valid, N, F, FB: tl.constexpr):  # (L, N); int64 (L,), of (N, F); int8 (N,)
    """Program (n, l): the sum of token n's squares. Tokens that do not count are left out."""
    n, layer, f = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, FB)
    if tl.load(valid + n) != 0:
        y = tl.load(at_layer(where, layer, like) + n * F + f, mask=f < F, other=0.0).to(tl.float32)
        tl.store(out + layer * N + n, tl.sum(y * y))


@triton.jit
def over_tokens(
    out, where, like, valid, squares,  # float32 (L, B, F); int64 (L,), of (B, T, F); int8 (B, T); float32 (L, B, T)
    T, F,
    KIND: tl.constexpr, BT: tl.constexpr, BF: tl.constexpr,
):  # fmt: skip
    """Program (i, b, l): BF neurons of text b, BT tokens at a time. KIND: energy or griffin."""
    text, f, some = tl.program_id(1).to(tl.int64), tl.program_id(0) * BF + tl.arange(0, BF), tl.arange(0, BT)
    layer, texts = tl.program_id(2), tl.num_programs(1)
    a = at_layer(where, layer, like)
    squares += layer * texts * T
    total = tl.zeros((BT, BF), tl.float32)
    for begin in tl.range(0, T, BT):
        token = text * T + begin + some
        counts = tl.load(valid + token, mask=begin + some < T, other=0) != 0
        y = tl.load(a + token[:, None] * F + f, mask=counts[:, None] & (f < F), other=0.0).to(tl.float32)
        y *= y
        if KIND == "griffin":
            y /= tl.maximum(tl.load(squares + token, mask=counts, other=1.0), 1.1754943508222875e-38)[:, None]
        total += y
    tl.store(out + (layer * texts + text) * F + f, tl.sum(total, 0), mask=f < F)
