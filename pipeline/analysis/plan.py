"""What an analysis measures, checked before any work."""

from dataclasses import dataclass

from coreinfer.settings import StatisticSettings, at_least, check_keep, check_seed

ALPHAS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
KEEPS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
FEWEST = 4  # texts: six pairs, the least that a correlation is worth
FARTHEST = 128  # tokens between two tokens of a text, and of a window
PROMPTS, MORE = (8, 64, 256), (8, 32, 64, 256)  # prompt tokens, and how many more are read after them
LONGEST = max(PROMPTS) + max(MORE)  # tokens read of a text at most


@dataclass(frozen=True)
class Plan:
    """The paper's two shares, and how texts are cut.

    Attributes:
        alpha: eq. 1's share of a token's neurons (the project's token fraction), where it is not what varies.
        keep: eq. 2's share of a layer's neurons (the paper's beta), where it is not what varies.
        prompt_tokens: P, run dense; the sets whose cost is measured come from them.
        continuation_tokens: C, the tokens after the prompt that are scored.
        seed: of the order of the texts, which decides on pairs of different texts, and of bootstraps.
    """

    alpha: float = 0.4
    keep: float = 0.4
    prompt_tokens: int = 64
    continuation_tokens: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        check_keep(self.alpha, "--alpha")
        check_keep(self.keep, "--keep (beta)")
        at_least("--prompt-tokens", self.prompt_tokens, 1)
        at_least("--continuation-tokens", self.continuation_tokens, 2)  # one alone is predicted dense
        check_seed(self.seed, "--seed")

    @property
    def length(self) -> int:
        """Tokens that every text needs; pairs of tokens, windows and whole texts are looked at within them."""
        return self.prompt_tokens + self.continuation_tokens

    @property
    def alphas(self) -> list[float]:
        return sorted({*ALPHAS, self.alpha})

    @property
    def keeps(self) -> list[float]:
        return sorted({*KEEPS, self.keep})

    @property
    def points(self) -> list[tuple[float, float]]:
        """(alpha, keep) of every set that is scored: each varies while the other is fixed."""
        return list(dict.fromkeys([(a, self.keep) for a in self.alphas] + [(self.alpha, k) for k in self.keeps]))

    @property
    def distances(self) -> list[int]:
        """1, 2, 4, …, as far apart as two tokens of a text lie, beginning-of-text left out."""
        return [d for d in _doubling() if d < self.length - 1]

    @property
    def windows(self) -> list[int]:
        """Sizes of the windows of tokens."""
        return [n for n in _doubling() if n < self.length]

    def growths(self, most: int) -> list[tuple[int, int]]:
        """(prompt, more) tokens whose sum texts of at most ``most`` tokens can have."""
        return [(prompt, more) for prompt in PROMPTS for more in MORE if prompt + more <= most]

    def count(self, alpha: float) -> StatisticSettings:
        """The paper's statistic: eq. 1 by magnitude, then eq. 2."""
        return StatisticSettings("count", alpha, "magnitude")


def _doubling() -> list[int]:
    return [1 << i for i in range(FARTHEST.bit_length())]
