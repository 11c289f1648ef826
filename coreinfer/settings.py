"""Choices that both halves must agree on, as frozen records that check themselves."""

from dataclasses import dataclass
from typing import Literal, get_args

from coreinfer.errors import CoreInferError

StatisticKind = Literal["energy", "count"]
CountMode = Literal["magnitude", "positive"]
Policy = Literal["auto", "similarity", "stability", "hybrid", "dense"]
Source = Literal["similarity", "stability", "hybrid", "dense"]


def one_of(what: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse ``value`` unless it is among ``allowed``."""
    if value not in allowed:
        raise CoreInferError(f"{what} is {value!r}: choose one of {', '.join(allowed)}")


def check_keep(keep: float) -> float:
    """Return ``keep`` if it is a share of all MLP neurons, 0 < keep <= 1; refuse it otherwise."""
    if not 0.0 < keep <= 1.0:
        raise CoreInferError(f"keep is {keep:g}: give a share of the MLP neurons above 0 and at most 1, such as 0.4")
    return keep


@dataclass(frozen=True)
class StatisticSettings:
    """Which number each (text, layer, neuron) gets; see ``coreinfer.statistic`` for the formulas.

    ``token_fraction`` and ``mode`` are eq. 1's and matter to ``count`` alone.
    """

    kind: StatisticKind = "energy"
    token_fraction: float = 0.4
    mode: CountMode = "magnitude"

    def __post_init__(self) -> None:
        one_of("the statistic", self.kind, get_args(StatisticKind))
        one_of("the count mode", self.mode, get_args(CountMode))
        if not 0.0 < self.token_fraction <= 1.0:
            raise CoreInferError(f"token fraction is {self.token_fraction:g}: give a share above 0 and at most 1")


@dataclass(frozen=True)
class PolicySettings:
    """The online half's numbers; a build measures or sets them and the artifact stores them.

    Attributes:
        auto: what ``auto`` does when the match is strong.
        threshold: the weakest cosine similarity that still counts as a match.
        mixture: how many nearest clusters make the prior.
        sharpness: softmax weight of a cluster is exp(sharpness * similarity).
        n0: how many prompt tokens the prior is worth in ``hybrid``.
        shrink: how many passages the global prior is worth in a cluster's prior.
    """

    auto: Source = "hybrid"
    threshold: float = 0.3
    mixture: int = 4
    sharpness: float = 12.0
    n0: float = 256.0
    shrink: float = 8.0
