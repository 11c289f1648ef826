"""PURE: token-wise core neurons (eq. 1) of one text in one layer -> how alike tokens are, and how much they use.

Shapes: T tokens in their order, beginning-of-text left out; sets as bits (T, W), see ``bits``.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.analysis.bits import Bits, Floats, overlap, sizes


def by_distance(tokens: Bits, distances: Sequence[int]) -> Floats:
    """The mean overlap of every two tokens that lie d apart, for each of ``distances`` -> (D,); nan from T on."""
    return np.array([overlap(tokens[:-d], tokens[d:]).mean() if d < len(tokens) else np.nan for d in distances])


def between(tokens: Bits, others: Bits) -> float:
    """The mean overlap of the tokens of two texts, each with the one at its place in the other text."""
    shared = min(len(tokens), len(others))
    return float(overlap(tokens[:shared], others[:shared]).mean())


def used(tokens: Bits, windows: int, width: int) -> Floats:
    """The share of a layer's ``width`` neurons that at least one token of a window needs -> (windows,).

    Entry i is the mean over windows of 2^i consecutive tokens, side by side from the text's first token on; tokens that
    fill no window at the end are left out, and there is nan where they fill none at all. A window is the union of two
    of half its size.
    """
    out = np.full(windows, np.nan)
    for i in range(windows):
        out[i] = sizes(tokens).mean() / width if len(tokens) else np.nan
        pairs = len(tokens) // 2 * 2
        tokens = tokens[:pairs:2] | tokens[1:pairs:2]
    return out


def independent(alpha: float, tokens: int) -> float:
    """What a window would use if each of its tokens drew a share alpha of the neurons by lot."""
    return float(1 - (1 - alpha) ** tokens)
