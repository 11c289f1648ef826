"""What CoreInfer (arXiv 2410.18311) reports, read off its plots, and where a measurement disagrees with it, in words.

The paper's models and texts are others than yours, and plots are read to 0.01: to disagree is a finding, no fault.
"""

from coreinfer.wording import counted

TOLERANCE = 0.05
# Overlap of a prompt's core set with that of the prompt and more: {(prompt tokens, more tokens): overlap}
STABILITY = {(8, 8): 0.67, (8, 32): 0.62, (8, 64): 0.57, (256, 8): 0.97, (256, 32): 0.94, (256, 64): 0.91}
# Spearman's correlation of similarity in meaning and overlap of core sets, least and most
SIMILARITY = (0.41, 0.66)


def stability_words(prompt: int, more: int, ours: float | None) -> str | None:
    """Whether the overlap after ``more`` tokens is the paper's; None where the paper has none or they agree."""
    paper = STABILITY.get((prompt, more))
    if paper is None or (ours is not None and _near(ours, paper, paper)):
        return None
    what = f"the core set of {prompt} tokens and that of {more} more"
    if ours is None:
        return f"No text has the {prompt + more} tokens to compare {what}; the paper's overlap is {paper:.2f}."
    return f"The overlap of {what} is {ours:.2f}, {_side(ours, paper)} the paper's {paper:.2f}."


def similarity_words(ours: float | None, pairs: int) -> str | None:
    """Whether the rank correlation lies where the paper's do; None where it does."""
    low, high = SIMILARITY
    if ours is None:
        return f"{counted(pairs, 'pair')} of texts have no rank correlation: one of both columns does not vary."
    if _near(ours, low, high):
        return None
    side = _side(ours, low if ours < low else high)
    return f"Similarity in meaning ranks overlaps with a correlation of {ours:.2f}, {side} the paper's {low} to {high}."


def _near(ours: float, low: float, high: float) -> bool:
    return low - TOLERANCE - 1e-9 <= ours <= high + TOLERANCE + 1e-9


def _side(ours: float, paper: float) -> str:
    return f"{abs(ours - paper):.2f} {'below' if ours < paper else 'above'}"
