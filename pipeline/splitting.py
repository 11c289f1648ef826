"""Long texts become pieces: cut between sentences where that is possible, into equal parts, and no more than needed.

It knows no tokenizer: ``count_tokens`` (n texts -> n counts) says how long texts are. A *span* is (start, end) in a
text; a *unit* is a span that fits, a group of units makes a piece.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from itertools import accumulate, pairwise

from coreinfer.errors import CoreInferError

CountTokens = Callable[[list[str]], list[int]]
Span = tuple[int, int]

CHARS_PER_TOKEN = 64  # longer texts are cut before they are counted, and joined again should they fit
# After . ! ? with closing quotes and whitespace, after CJK stops, after a blank line. The quantifiers are possessive: a
# page of brackets must not cost quadratic time.
SENTENCE_END = re.compile(
    r"(?<=[.!?\u2026])[\"'\u2019\u201d\xbb)\]]*+\s++|[\u3002\uff01\uff1f]++[\u2019\u201d\u300d\u300f]*+\s*+|\n[^\S\n]*+\n\s*+"
)


def bounded_sizes(texts: list[str], most: int, count_tokens: CountTokens) -> list[int]:
    """Tokens of each text, stripped; ``most`` + 1 for what is too long to be worth tokenizing."""
    longest = most * CHARS_PER_TOKEN
    sizes = count_tokens([text[:longest].strip() for text in texts])
    return [size if len(text) <= longest else most + 1 for text, size in zip(texts, sizes, strict=True)]


def split_text(text: str, most: int, count_tokens: CountTokens) -> list[str]:
    """Cut into the fewest pieces of at most ``most`` tokens, about equally long; only whitespace at cuts is lost.

    Raises CoreInferError when a single character takes more tokens than that.
    """
    units, sizes = _units(text, most, count_tokens)
    groups = list(pairwise(_even_cuts(sizes, most)))
    while True:
        pieces = [text[units[a][0] : units[b - 1][1]].strip() for a, b in groups]
        sizes = count_tokens(pieces)
        if max(sizes) <= most:
            return [piece for piece in pieces if piece]
        # Tokens need not add up: units that fit one by one can be too many together, so halve those groups.
        cut = [[a, (a + b) // 2, b] if size > most else [a, b] for (a, b), size in zip(groups, sizes, strict=True)]
        groups = [half for edges in cut for half in pairwise(edges)]


def _units(text: str, most: int, count_tokens: CountTokens) -> tuple[list[Span], list[int]]:
    """Sentences, those above ``most`` tokens halved until they fit -> a span and a size for each."""
    spans = list(pairwise([0, *(end.end() for end in SENTENCE_END.finditer(text, 0, len(text.rstrip()))), len(text)]))
    known: dict[Span, int] = {}
    while True:
        fresh = [span for span in spans if span not in known]
        known.update(zip(fresh, bounded_sizes([text[a:b] for a, b in fresh], most, count_tokens), strict=True))
        if all(known[span] <= most for span in spans):
            return spans, [known[span] for span in spans]
        spans = [part for span in spans for part in (_halves(text, span, most) if known[span] > most else [span])]


def _halves(text: str, span: Span, most: int) -> list[Span]:
    """Cut at the whitespace nearest the middle; in the middle of a single word."""
    a, b = span
    if b - a < 2:
        raise CoreInferError(
            f"--passage-tokens is {most}, but the character {text[a:b]!r} alone takes more: give a larger one"
        )
    middle = (a + b) // 2
    gaps = (gap.start() for gap in re.finditer(r"\s+", text[a:b]) if gap.start() > 0)
    cut = a + min(gaps, key=lambda gap: abs(a + gap - middle), default=middle - a)
    return [(a, cut), (cut, b)]


def _even_cuts(sizes: list[int], most: int) -> list[int]:
    """The units' sizes -> the edges 0 ... u of the fewest groups of at most ``most`` each, as even as can be."""
    sums = [0, *accumulate(sizes)]
    earliest = [len(sizes)]  # packed greedily from the end: no group can start before this and leave the rest a fit
    while earliest[-1] > 0:
        earliest.append(bisect_left(sums, sums[earliest[-1]] - most))
    earliest.reverse()
    cuts = [0]
    for group in range(1, len(earliest) - 1):
        ideal = sums[-1] * group / (len(earliest) - 1)
        after = bisect_left(sums, ideal)
        nearest = after if sums[after] - ideal < ideal - sums[after - 1] else after - 1
        furthest = bisect_right(sums, sums[cuts[-1]] + most) - 1
        cuts.append(min(max(nearest, earliest[group]), furthest))
    return [*cuts, len(sizes)]
