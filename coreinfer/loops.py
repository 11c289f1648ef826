"""The statistic of texts and its sums in loops that Numba compiles once, for a CPU: what passes is read once, and
nothing is written between it and the result.

Activations come as the bits that they are, uint16 of bfloat16 or uint32 of float32; shifted by 16 or 0 they are the
bits of a float32.
"""

from typing import Any

import numpy as np
from numba import njit, prange

ENERGY, GRIFFIN, COUNT = range(3)
MAGNITUDE = np.uint32(0x7FFFFFFF)  # the bits of a float32 without its sign, which as integers are in order of size
INFINITE = np.uint32(0x7F800000)  # from here on they are of no finite number
NONE = np.float32(np.nan)
TINY = np.float32(np.finfo(np.float32).tiny)
FIXED_POINT = 2.0**36  # as ``coreinfer.neurons``'; a test compares
ROUNDING = 1.5 * 2.0**52  # a number below 2^51, added to this, is rounded, and stands in the lowest bits
FAST = {"fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy", "boundscheck": False, "cache": True}
EXACT = FAST | {"fastmath": False, "nogil": True}  # a GPU's next batch is launched meanwhile


@njit(**FAST)
def _threshold(bits: Any, core: int, lowest: int) -> Any:
    """The ``core``-th largest of ``bits``, found from the highest bit down: one more is set as long as so many are that
    large. Bits below the ``lowest`` are 0.
    """
    found = np.uint32(0)
    for bit in range(30, lowest - 1, -1):
        higher, count = found | np.uint32(np.uint32(1) << np.uint32(bit)), np.float32(0)
        for f in range(len(bits)):
            count += np.float32(bits[f] >= higher)  # exact to 2^24, and 16 at a time, where integers would be 8
        if count >= core:
            found = higher
    return found


@njit(**FAST)
def _add_token(token: Any, shift: int, kind: int, core: int, bits: Any, x: Any, out: Any) -> None:
    """A token's part of the sums ``out`` (F,); ``bits`` and ``x`` are the same place to work in, (F,)."""
    for f in range(len(token)):
        bits[f] = np.uint32(token[f]) << np.uint32(shift)
    if kind == ENERGY:
        for f in range(len(x)):
            out[f] += x[f] * x[f]
    elif kind == GRIFFIN:
        total = np.float32(0)
        for f in range(len(x)):
            total += x[f] * x[f]
        scale = np.float32(1) / max(total, TINY)
        for f in range(len(x)):
            out[f] += x[f] * x[f] * scale
    else:
        for f in range(len(bits)):
            bits[f] &= MAGNITUDE
        least = max(_threshold(bits, core, shift), np.uint32(1))  # 0 is never core
        for f in range(len(bits)):
            out[f] += NONE if bits[f] >= INFINITE else np.float32(bits[f] >= least)


@njit(**FAST)
def over_tokens(
    a: Any, shift: int, counts: Any, starts: Any, kind: int, core: int, first: int, step: int, out: Any
) -> None:
    """``a`` (N, F) -> ``out`` float32 (B, F): of text b the tokens from starts[b] to starts[b + 1] that count; of the
    texts first, first + step, …
    """
    bits = np.empty(a.shape[1], np.uint32)
    x = bits.view(np.float32)
    for text in range(first, len(out), step):
        out[text] = 0
        for n in range(starts[text], starts[text + 1]):
            if counts[n]:
                _add_token(a[n], shift, kind, core, bits, x, out[text])


@njit(parallel=True, **FAST)
def shared_over_tokens(
    a: Any, shift: int, counts: Any, starts: Any, kind: int, core: int, threads: int, out: Any
) -> None:
    """The same of all texts, on so many threads."""
    for part in prange(threads):
        over_tokens(a, shift, counts, starts, kind, core, part, threads, out)


@njit(**EXACT)
def add_fixed(sums: Any, rows: Any, shares: Any, first: int, end: int) -> None:
    """Add shares (B, X), in fixed point, to ``sums`` (K, X): text b's to each of rows[:, b], from first to end of X."""
    rounded = np.empty(max(0, end - first) + 1)
    fixed = rounded.view(np.int64)
    rounded[-1] = ROUNDING
    for text in range(len(shares)):
        for j in range(first, end):
            rounded[j - first] = shares[text, j] * FIXED_POINT + ROUNDING
        for row in rows[:, text]:
            for j in range(first, end):
                sums[row, j] += fixed[j - first] - fixed[-1]


@njit(parallel=True, **EXACT)
def shared_add_fixed(sums: Any, rows: Any, shares: Any, threads: int) -> None:
    """The same of all X; a thread has a part of it, so that no two add to one number."""
    each = -(-shares.shape[1] // threads)
    for part in prange(threads):
        add_fixed(sums, rows, shares, part * each, min(shares.shape[1], (part + 1) * each))
