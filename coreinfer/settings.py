"""Choices that both halves must agree on, as frozen records that check themselves."""

from dataclasses import dataclass
from typing import Literal, get_args

from coreinfer.errors import CoreInferError, in_words

StatisticKind = Literal["energy", "count", "griffin"]
Dtype = Literal["auto", "float32", "bfloat16", "int8", "int4"]
TrainDtype = Literal["auto", "float32", "bfloat16"]
CountMode = Literal["magnitude", "positive"]
Policy = Literal["auto", "similarity", "stability", "hybrid", "dense"]
Source = Literal["similarity", "stability", "hybrid", "dense"]
BY_CLUSTER: tuple[Source, ...] = ("similarity", "hybrid")  # whose neurons a cluster's statistic has a say in


def one_of(what: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse ``value`` unless it is among ``allowed``."""
    if value not in allowed:
        raise CoreInferError(f"{what} is {value!r}: choose one of {', '.join(allowed)}")


def at_least(what: str, value: int, least: int) -> None:
    """Refuse a number below ``least``."""
    if value < least:
        raise CoreInferError(f"{what} is {value}: give at least {least}")


def check_seed(seed: int, what: str = "the seed") -> None:
    """Refuse a seed that NumPy, FAISS and torch do not all take."""
    if not 0 <= seed < 1 << 31:
        raise CoreInferError(f"{what} is {seed}: give a whole number from 0 to {(1 << 31) - 1}")


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that makes no usable probabilities; 0 is greedy."""
    if temperature != 0 and not 0.01 <= temperature <= 100:
        raise CoreInferError(f"--temperature is {temperature:g}: give 0 for greedy, or 0.01 to 100")


def check_device(device: str) -> None:
    """Refuse a device that torch does not have here."""
    import torch

    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise CoreInferError(
            f"the device is {device!r}, which torch cannot use here ({in_words(error)}): give cpu, or a GPU's name "
            "such as cuda"
        ) from error


def check_keep(keep: float, what: str = "keep") -> float:
    """Return ``keep`` if it is a share of all MLP neurons, 0 < keep <= 1; refuse it otherwise."""
    if not 0.0 < keep <= 1.0:
        raise CoreInferError(f"{what} is {keep:g}: give a share of the MLP neurons above 0 and at most 1, such as 0.4")
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


QUANTISED = {"int8": 8, "int4": 4}  # the dtypes that are ways to load linear weights, and their bits
HELD = 1 << 28  # bytes of activations that a forward on a GPU holds until they are reduced together
RUNTIMES = ("auto", "coreinfer", "transformers", "llama.cpp")  # who makes tokens
DOUBT_TOKENS = 64  # of the prompts that ``PolicySettings.doubt`` is of


@dataclass(frozen=True)
class PolicySettings:
    """The online half's numbers; a build measures or sets them and the artifact stores them.

    Attributes:
        auto: what ``auto`` does when the match is strong.
        threshold: the weakest cosine similarity that still counts as a match.
        strong: the similarity from which the prior is worth all of ``n0``; from the threshold on, a part in proportion.
        mixture: how many nearest clusters make the prior.
        sharpness: softmax weight of a cluster is exp(sharpness * similarity).
        n0: how many prompt tokens the prior is worth in ``hybrid``.
        doubt, doubt_fall: a usual prompt of P tokens disagrees with its match by ``doubt * (64 / P) ** doubt_fall`` at
            most (``Artifact.doubt``).
        shrink: how many passages the global prior is worth in a cluster's prior.
    """

    auto: Source = "hybrid"
    threshold: float = 0.3
    strong: float = 0.3
    mixture: int = 4
    sharpness: float = 12.0
    n0: float = 256.0
    shrink: float = 8.0
    doubt: float = 1.0
    doubt_fall: float = 0.0

    def usual(self, tokens: int) -> float:
        """The most that a prompt of so many tokens usually disagrees with its match; from 1 on, nothing is doubted."""
        return self.doubt * float((DOUBT_TOKENS / max(tokens, 1)) ** self.doubt_fall)

    def n0_at(self, similarity: float, doubt: float = 0.0, tokens: int = 1) -> float:
        """How many prompt tokens the prior is worth in ``hybrid``, by the similarity of the best match, and by how far
        the neurons that a prompt of so many tokens used disagree with it.

        What misses what it predicts is worth little: at twice the usual doubt, an eighth. (With the square, prompts in
        scripts that the corpus lacks lose up to 30% to stability; with the fourth power, others lose more than they.)
        """
        usual = self.usual(tokens)
        trusted = self.n0 if doubt <= usual else self.n0 * (usual / doubt) ** 3
        if similarity < self.threshold:
            return 0.0
        if similarity >= self.strong:
            return trusted
        return trusted * (similarity - self.threshold) / (self.strong - self.threshold)
