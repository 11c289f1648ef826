"""What a bench measures."""

from dataclasses import dataclass

from coreinfer.errors import CoreInferError
from coreinfer.settings import at_least


@dataclass(frozen=True)
class Plan:
    """Tokens of the prompt and decoded after it, positions of the cache, shares of the MLP neurons kept; and how many
    texts are decoded at a time besides one, at the least of those shares.
    """

    prompt_tokens: int = 128
    new_tokens: int = 64
    context: int = 1024
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
        if self.prompt_tokens + self.new_tokens + 1 > self.context:
            raise CoreInferError(
                f"{self.prompt_tokens} prompt tokens and {self.new_tokens} more do not fit into a context of "
                f"{self.context}: lower them or raise --context"
            )
