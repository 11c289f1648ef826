"""Rows of weights as kernels read them. BITS: 32 stands for floats as they are, 16 for bfloat16, 8 and 4 for integers
with scales (``quantised.packed``).

What is smaller than 32 bits comes in words: two bfloat16, since each alone would take a register of twice its size, or
four integers. A vector that rows are multiplied with is taken apart likewise, by a weight's place in its word:
(HB / 2, 2) for 16 bits and (HB / 4, 2, 2) for 8, by words and place; (HB / 64, 16, 2, 2) for 4, by groups, words and
place.

A bfloat16 is the upper half of a float. Conversions of integers to floats would cost more than all else here, so there
are none: a word whose other bits are set to zero is, read as a float, its integer times 2^-149, exactly (a float
without exponent is a fixed-point number: IEEE 754, subnormals; multiplications take those at full speed). ``UP`` on the
vector keeps products in range, ``DOWN`` takes both back. What is stored is the weight plus 128 or 8, so as many times
the vector's sum is subtracted at the end.
"""

import triton
import triton.language as tl

UP = tl.constexpr(2.0**100)
DOWN = tl.constexpr(2.0**49)


@triton.jit
def places(HB: tl.constexpr, BITS: tl.constexpr):
    """Which elements of a vector lie where."""
    pair = tl.arange(0, 2)
    if BITS == 4:
        group, word = tl.arange(0, HB // 64)[:, None, None, None], tl.arange(0, 16)[None, :, None, None]
        i = group * 64 + word + 32 * pair[None, None, :, None] + 16 * pair[None, None, None, :]
    elif BITS == 8:
        i = 4 * tl.arange(0, HB // 4)[:, None, None] + 2 * pair[None, :, None] + pair[None, None, :]
    elif BITS == 16:
        i = 2 * tl.arange(0, HB // 2)[:, None] + pair
    else:
        i = tl.arange(0, HB)
    return i


@triton.jit
def by_place(a, b, c, d, BITS: tl.constexpr):
    """Each over what its place multiplies an integer by."""
    if BITS == 8:
        b, c, d = b * 2.0**-8, c * 2.0**-16, d * 2.0**-16  # ``of_word`` moves the last one
    if BITS == 4:
        b, c, d = b * 2.0**-4, c * 2.0**-8, d * 2.0**-12
    return a, b, c, d


@triton.jit
def parts(x, BITS: tl.constexpr):
    """A vector as ``dot`` takes it: what each place in a word is multiplied with, and what is subtracted then."""
    if BITS == 32:
        a, b, c, d, less = x, x, x, x, 0.0
    elif BITS == 16:
        a, b = tl.split(x)
        c, d, less = a, b, 0.0
    else:
        even, odd = tl.split(x * UP)
        a, c = tl.split(even)
        b, d = tl.split(odd)
        a, b, c, d = by_place(a, b, c, d, BITS)
        less = 128 * tl.sum(x) if BITS == 8 else 8 * tl.sum(tl.sum(tl.sum(x, 3), 2), 1)
    return a, b, c, d, less


@triton.jit
def joined(a, b, c, d, BITS: tl.constexpr):
    """Vectors by place in a word as one, whose elements lie where ``places`` says."""
    if BITS == 16:
        a = tl.join(a, b)
    elif BITS != 32:
        a = tl.join(tl.join(a, c), tl.join(b, d))
    return a


@triton.jit
def rows_of(weight, scales, at, there, start, H: tl.constexpr, HB: tl.constexpr, BITS: tl.constexpr):
    """HB columns from ``start`` on of the rows ``at`` (n,) that are ``there``, of (…, H), and their scales.

    4 bits: words (n, HB / 64, 16), scales (n, HB / 64). 8 bits: (n, HB / 4) and (n,). 16: (n, HB / 2), no scales.
    """
    at = at.to(tl.int64)
    if BITS == 4:
        group, word = start // 64 + tl.arange(0, HB // 64), tl.arange(0, 16)
        inside = there[:, None] & (group < H // 64)
        s = tl.load(scales + at[:, None] * (H // 64) + group, mask=inside, other=0.0)
        word = group[:, None] * 16 + word
        w = tl.load(weight + at[:, None, None] * (H // 4) + word, mask=inside[:, :, None], other=0)
    elif BITS == 8:
        word = start // 4 + tl.arange(0, HB // 4)
        s = tl.load(scales + at, mask=there, other=0.0)
        w = tl.load(weight + at[:, None] * (H // 4) + word, mask=there[:, None] & (word < H // 4), other=0)
    elif BITS == 16:
        word = start // 2 + tl.arange(0, HB // 2)
        w = tl.load(weight + at[:, None] * (H // 2) + word, mask=there[:, None] & (word < H // 2), other=0)
        s = w
    else:
        i = start + tl.arange(0, HB)
        w = tl.load(weight + at[:, None] * H + i, mask=there[:, None] & (i < H), other=0.0)
        s = w
    return w, s


@triton.jit
def of_word(w, PLACE: tl.constexpr, BITS: tl.constexpr):
    """What is at a place of each word: a float, or the integer plus 128 or 8, by 2^-149 and what ``by_place`` says."""
    if BITS == 16:
        bits = (w << 16) if PLACE == 0 else w & -65536
    elif BITS == 4:
        bits = w.to(tl.int32) & (15 << (4 * PLACE))
    elif PLACE == 3:
        bits = ((w ^ -0x7F7F7F80) >> 8) & 0xFF0000  # each byte's highest bit turned: plus 128
    else:
        bits = (w ^ -0x7F7F7F80) & (0xFF << (8 * PLACE))
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def dot(w, s, a, b, c, d, less, BITS: tl.constexpr):
    """Rows times a vector in ``parts``: (n,)."""
    if BITS == 32:
        y = tl.sum(w.to(tl.float32) * a, 1)
    elif BITS == 16:
        y = tl.sum(of_word(w, 0, BITS) * a + of_word(w, 1, BITS) * b, 1)
    else:
        y = of_word(w, 0, BITS) * a + of_word(w, 1, BITS) * b + of_word(w, 2, BITS) * c + of_word(w, 3, BITS) * d
        if BITS == 8:
            y = (tl.sum(y, 1) * DOWN - less) * s
        else:
            y = tl.sum((tl.sum(y, 2) * DOWN - less) * s.to(tl.float32), 1)
    return y
