"""The statistic of a text's tokens, from one layer's activations (B, T, F) as they pass: ``coreinfer.statistic``.

``over_tokens`` reads them once. What count and griffin know of a token first, its threshold or its norm, ``of_token``
reads them for once more.
"""

import triton
import triton.language as tl


@triton.jit
def magnitude(x):
    """Bits of |x|, which as integers are in the order of the sizes."""
    if x.dtype == tl.float32:
        bits = x.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    else:
        bits = x.to(tl.int16, bitcast=True).to(tl.int32) & 0x7FFF
    return bits


@triton.jit
def of_token(
    out, a, valid,  # (N,), int32 or float32; (N, F); int8 (N,)
    F, k,
    COUNT: tl.constexpr, BITS: tl.constexpr, FB: tl.constexpr,
):  # fmt: skip
    """Program n, token n: the sum of its squares; with COUNT the bits of its k-th largest magnitude, found from the
    highest bit down: one more is set as long as k magnitudes are that large. Tokens that do not count are left out.
    """
    n, f = tl.program_id(0).to(tl.int64), tl.arange(0, FB)
    if tl.load(valid + n) != 0:
        x = tl.load(a + n * F + f, mask=f < F, other=0.0)
        if COUNT:
            size = magnitude(x)  # those beyond F are 0, and no threshold is lower
            threshold = tl.zeros((), tl.int32)
            for bit in tl.static_range(BITS - 1, -1, -1):
                higher = threshold | (1 << bit)
                threshold = tl.where(tl.sum((size >= higher).to(tl.int32)) >= k, higher, threshold)
            tl.store(out + n, threshold)
        else:
            y = x.to(tl.float32)
            tl.store(out + n, tl.sum(y * y))


@triton.jit
def over_tokens(
    out, a, valid, each,  # float32 (B, F); (B, T, F); int8 (B, T); (B, T), of ``of_token``
    T, F,
    KIND: tl.constexpr, BT: tl.constexpr, BF: tl.constexpr,
):  # fmt: skip
    """Program (i, b): BF neurons of text b, BT tokens at a time. KIND: energy, count or griffin."""
    text, f, some = tl.program_id(1).to(tl.int64), tl.program_id(0) * BF + tl.arange(0, BF), tl.arange(0, BT)
    total = tl.zeros((BT, BF), tl.float32)
    for begin in tl.range(0, T, BT):
        token = text * T + begin + some
        counts = tl.load(valid + token, mask=begin + some < T, other=0) != 0
        x = tl.load(a + token[:, None] * F + f, mask=counts[:, None] & (f < F), other=0.0)
        if KIND == "count":
            least = tl.maximum(tl.load(each + token, mask=counts, other=1), 1)  # 0 is never core
            total += (magnitude(x) >= least[:, None]).to(tl.float32)
        else:
            y = x.to(tl.float32)
            y *= y
            if KIND == "griffin":
                y /= tl.maximum(tl.load(each + token, mask=counts, other=1.0), 1.1754943508222875e-38)[:, None]
            total += y
    tl.store(out + text * F + f, tl.sum(total, 0), mask=f < F)
