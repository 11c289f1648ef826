"""What a run measures, checked before any work, and the texts that it measures on."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.errors import CoreInferError
from coreinfer.refresh import Refresh, parse_refresh
from coreinfer.settings import at_least, check_keep, check_seed, one_of

LADDER = (
    "random", "wrong-cluster", "global", "paper-stability", "griffin", "stability", "glass", "similarity", "hybrid",
    "auto", "oracle",
)  # fmt: skip
RENEWED = ("stability", "similarity", "hybrid", "auto")  # what a refresh makes another rung of
REFRESH = "+refresh"  # at the end of its name
FEWEST = 2  # texts: one alone has no interval


@dataclass(frozen=True)
class Plan:
    """Every policy at every keep after every prompt length, on the same texts.

    Attributes:
        keeps: shares of all MLP neurons kept.
        prompt_tokens: the lengths P; each prompt is the first P tokens of its text.
        continuation_tokens: C, the tokens after the prompt that are scored; the first of them is predicted dense.
        policies: of ``LADDER``, in the order of the rows; dense comes always.
        seed: of random scores, wrong clusters and bootstraps.
        refresh: also measure sets that are chosen again as the continuation grows (``coreinfer.refresh``). None: no
            such rungs.
    """

    keeps: tuple[float, ...]
    prompt_tokens: tuple[int, ...] = (64,)
    continuation_tokens: int = 128
    policies: tuple[str, ...] = LADDER
    seed: int = 0
    refresh: Refresh = None

    def __post_init__(self) -> None:
        if not (self.keeps and self.prompt_tokens and self.policies):
            raise CoreInferError(f"{self} measures nothing: give a keep, a prompt length and a policy at least")
        for keep in self.keeps:
            check_keep(keep)
        for tokens in self.prompt_tokens:
            at_least("--prompt-tokens", tokens, 1)
        at_least("--continuation-tokens", self.continuation_tokens, 2)  # one alone is predicted dense
        for policy in self.policies:
            one_of("--policy", policy, LADDER)
        check_seed(self.seed)
        parse_refresh(self.refresh)
        for name in ("keeps", "prompt_tokens", "policies"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))

    @property
    def length(self) -> int:
        """Tokens that a text needs: the longest prompt and the continuation."""
        return max(self.prompt_tokens) + self.continuation_tokens


@dataclass(frozen=True)
class Text:
    """A text by name, its first ``Plan.length`` token ids (int32), and its domain where that is known."""

    name: str
    ids: NDArray[np.int32]
    domain: str | None = None


def cut(tokenizer: Any, texts: list[str], length: int, most: int | None = None) -> list[NDArray[np.int32] | None]:
    """The first ``length`` token ids of each text, or up to ``most`` of them; None for a shorter one."""
    rows = tokenizer(texts, verbose=False)["input_ids"] if texts else []  # no truncation: it may end texts by a token
    return [np.asarray(row[: most or length], np.int32) if len(row) >= length else None for row in rows]


def check_enough(found: int, seen: int, plan: Plan, where: str = "the texts given") -> None:
    """Refuse to measure on fewer than two texts.

    Raises:
        CoreInferError: with the numbers.
    """
    if found < FEWEST:
        raise CoreInferError(
            f"{found} of {seen} texts of {where} have the {plan.length} tokens that prompt and continuation need, at "
            f"least {FEWEST} must: give more or longer texts, or lower --prompt-tokens and --continuation-tokens"
        )


def name_texts(tokenizer: Any, texts: Iterable[str], plan: Plan) -> list[Text]:
    """The texts that are long enough, named by their place."""
    given = list(texts)
    rows = enumerate(cut(tokenizer, given, plan.length))
    found = [Text(f"text {i}", row) for i, row in rows if row is not None]
    check_enough(len(found), len(given), plan)
    return found
