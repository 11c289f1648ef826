"""What an analysis finds, as records; JSON is made of them, and the table and the pictures read them."""

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.analysis.bits import Floats


@dataclass(frozen=True)
class Mean:
    """Over ``texts``; the interval is None for fewer than two."""

    mean: float
    low: float | None
    high: float | None
    texts: int


@dataclass(frozen=True)
class Cost:
    """NLL rise over dense, nats per token, on sets of the paper's count."""

    alpha: float
    keep: float
    nll_rise: Mean


@dataclass(frozen=True)
class Near:
    """Overlap of the token-wise core sets of two tokens that lie so many tokens apart."""

    distance: int
    overlap: Mean


@dataclass(frozen=True)
class Used:
    """Share of a layer's neurons that are core for a token of a window; ``independent``: if tokens drew by lot."""

    tokens: int
    share: Mean
    independent: float


@dataclass(frozen=True)
class Stable:
    """Overlap of the core set of a prompt and that of the prompt and more.

    ``by_lot``: what it would be if tokens drew their core neurons by lot (count only). ``paper``: CoreInfer's.
    """

    statistic: str
    prompt_tokens: int
    more_tokens: int
    overlap: Mean
    by_lot: float | None
    paper: float | None


@dataclass(frozen=True)
class Similar:
    """Spearman's correlation of cosine and overlap over pairs of texts; ``bins``: means of both over eighths."""

    statistic: str
    spearman: float | None
    low: float | None
    high: float | None
    texts: int
    pairs: int
    bins: list[tuple[float, float]]
    paper: tuple[float, float] | None


@dataclass(frozen=True)
class Findings:
    """All of an analysis; see ``Plan`` for what varies in each part."""

    dense_nll: Mean
    against_alpha: list[Cost]
    against_keep: list[Cost]
    near: list[Near]
    apart: Mean
    used: list[Used]
    stability: list[Stable]
    similarity: list[Similar]
    disagreements: list[str]

    def as_json(self) -> dict[str, Any]:
        return {name: _rounded(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Pairs:
    """Every two texts: cosine of their embeddings (m,), overlap of their core sets by statistic (S, m)."""

    texts: int
    cosines: Floats
    overlaps: Floats


def _rounded(value: Any) -> Any:
    """Six digits, in whatever it lies; no -0.0."""
    if isinstance(value, float):
        return round(value, 6) + 0.0
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value
