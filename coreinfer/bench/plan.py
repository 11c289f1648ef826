"""What a bench measures."""

from dataclasses import dataclass

from coreinfer.errors import CoreInferError
from coreinfer.settings import at_least

PROMPT, POSITIONS = 128, 1024  # tokens of the prompt, and of the cache, unless others are asked for


@dataclass(frozen=True)
class Plan:
    """Tokens of the prompt and decoded after it, positions of the cache, shares of the MLP neurons kept; and how many
    texts are decoded at a time besides one, at each share below 1.
    """

    prompt_tokens: int = PROMPT
    new_tokens: int = 64
    context: int | None = None
    keeps: tuple[float, ...] = (1.0, 0.4)
    texts: int = 8

    def __post_init__(self) -> None:
        """
        Raises:
            CoreInferError: what is decoded does not fit into the context.
        """
        at_least("--prompt-tokens", self.prompt_tokens, 1)
        at_least("--max-new-tokens", self.new_tokens, 2)
        at_least("--batch", self.texts, 1)
        if self.context is not None:
            self._check(self.context, "raise --context")

    def _check(self, context: int, remedy: str) -> None:
        if self.prompt_tokens + self.new_tokens + 1 > context:
            raise CoreInferError(
                f"{self.prompt_tokens} prompt tokens and {self.new_tokens} more do not fit into a context of "
                f"{context}: lower them or {remedy}"
            )

    def positions(self, most: int, shape: str) -> int:
        """Of the cache: those asked for, or ``POSITIONS``, or what a model of ``shape`` has, ``most``, if that is less.

        Raises:
            CoreInferError: more than the model has are asked for, or it has too few for what is decoded.
        """
        if self.context is not None and self.context > most:
            raise CoreInferError(f"--context is {self.context}, {shape} has a context of {most}: give at most that")
        found = self.context or min(POSITIONS, most)
        self._check(found, "take a model with a longer one")
        return found
