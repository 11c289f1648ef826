"""Heads of a CPU's step in compiled loops: normed, turned, put into caches, and what they attend to."""

from typing import Any

import numpy as np
from numba import njit

from coreinfer.decode.compiled import EXACT, FAST, narrow, normed_row, wide

MADE_OF = "ac9f7d18a00e"  # as ``compiled``'s


@njit(**FAST)
def _turn(qkv: Any, first: int, end: int, weight: Any, eps: float, table: Any, turned: int, positions: Any) -> None:
    """Norm the heads ``first`` to ``end`` of (R, n, D) by ``weight`` (D,), if it is not empty, then turn their first
    dimensions; in place.
    """
    half = turned // 2
    for r in range(len(qkv)):
        cos, sin = table[positions[r], 0], table[positions[r], 1]
        for h in range(first, end):
            head = qkv[r, h]
            if len(weight):
                normed_row(head, weight, weight[:0], eps, head)
            for i in range(half):
                a, b = head[i], head[i + half]
                head[i] = a * cos[i] - b * sin[i]
                head[i + half] = b * cos[i + half] + a * sin[i + half]


@njit(**FAST)
def _store(qkv: Any, first: int, cache: Any, slots: Any, positions: Any) -> None:
    """The heads of (R, n, D) from ``first`` on, each row's into its slot of a cache (S, C, KV, D)."""
    for r in range(len(qkv)):
        place = cache[slots[r], positions[r]]
        for g in range(len(place)):
            head = qkv[r, first + g]
            for i in range(len(head)):
                place[g, i] = narrow(head[i], place[g, i])


@njit(**FAST)
def remember(
    qkv: Any, heads: int, q_norm: Any, k_norm: Any, eps: float, table: Any, turned: int, keys: Any, values: Any,
    slots: Any, positions: Any,
) -> None:  # fmt: skip
    """Norm and turn the queries and keys of (R, n, D), in place, where a ``table`` (C, 2, D) says how, and put keys and
    values into their caches.
    """
    last = heads + keys.shape[2]
    if len(table):
        _turn(qkv, 0, heads, q_norm, eps, table, turned, positions)
        _turn(qkv, heads, last, k_norm, eps, table, turned, positions)
    _store(qkv, heads, keys, slots, positions)
    _store(qkv, last, values, slots, positions)


@njit(**EXACT)
def _exp(x: Any) -> Any:
    """exp of a float32 that is not above 0, within 2 units in the last place, in instructions that have vectors: with
    n = round(x / ln 2), 2^n times the series of exp(x - n ln 2), each coefficient 1 / k!; what is less than 2^-126
    is that.
    """
    x = max(x, np.float32(-87.33654))
    n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = (x - n * np.float32(0.693359375)) + n * np.float32(2.12194440e-4)
    y = np.float32(1.0 / 5040)
    y = y * r + np.float32(1.0 / 720)
    y = y * r + np.float32(1.0 / 120)
    y = y * r + np.float32(1.0 / 24)
    y = y * r + np.float32(1.0 / 6)
    y = y * r + np.float32(0.5)
    y = y * r + np.float32(1)
    y = y * r + np.float32(1)
    return y * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


def _head(
    q: Any, keys: Any, values: Any, g: int, since: int, at: int, scale: float, cap: float, s: Any, out: Any
) -> None:
    """One query head (D,) over positions ``since`` to ``at`` of caches (C, KV, D); ``s`` (C,) is room for scores."""
    top = np.float32(-np.inf)
    for j in range(since, at + 1):
        a = np.float32(0)
        for i in range(len(q)):
            a += q[i] * wide(keys[j, g, i])
        a *= np.float32(scale)
        if cap > 0:
            a = np.float32(np.tanh(a / np.float32(cap)) * np.float32(cap))
        s[j] = a
        top = max(top, a)
    total = np.float32(0)
    for j in range(since, at + 1):
        s[j] = _exp(s[j] - top)
        total += s[j]
    out[:] = 0
    j = since
    while j + 4 <= at + 1:
        a, b, c, d = s[j], s[j + 1], s[j + 2], s[j + 3]
        for i in range(len(q)):
            out[i] += (a * wide(values[j, g, i]) + b * wide(values[j + 1, g, i])) + (
                c * wide(values[j + 2, g, i]) + d * wide(values[j + 3, g, i])
            )
        j += 4
    while j <= at:
        for i in range(len(q)):
            out[i] += s[j] * wide(values[j, g, i])
        j += 1
    for i in range(len(q)):
        out[i] /= total


_head = njit(**FAST)(_head)


def attend_one(
    n: int, heads: int, qkv: Any, keys: Any, values: Any, slots: Any, positions: Any, window: int, scale: float,
    cap: float, s: Any, out: Any,
) -> None:  # fmt: skip
    """The n-th of all heads of all rows."""
    r, h = n // heads, n % heads
    at, slot, g = positions[r], slots[r], h // (heads // keys.shape[2])
    _head(qkv[r, h], keys[slot], values[slot], g, max(0, at + 1 - window), at, scale, cap, s[n], out[r, h])


attend_one = njit(**FAST)(attend_one)


@njit(**FAST)
def attend(
    heads: int, qkv: Any, keys: Any, values: Any, slots: Any, positions: Any, window: int, scale: float, cap: float,
    s: Any, out: Any,
) -> None:  # fmt: skip
    """The first ``heads`` of (R, n, D), each row over its slot of the caches (S, C, KV, D) up to its position: ``out``
    (R, heads, D).

    ``s`` (R heads, C): room for scores.
    """
    for n in range(len(qkv) * heads):
        attend_one(n, heads, qkv, keys, values, slots, positions, window, scale, cap, s, out)
