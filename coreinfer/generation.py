"""What a continuation is, and whether a model has room for one."""

from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedModel

from coreinfer.decode.lossless import Drafts
from coreinfer.errors import CoreInferError
from coreinfer.models import context_length
from coreinfer.policy import Prediction

Stopped = Literal["length", "context", "eos"]


@dataclass(frozen=True)
class Generation:
    """A continuation and how it was made; seconds are wall time, decode counts every token but the first.

    ``stopped``: at as many tokens as were asked for, at the end of the model's context, or, before both, at an
    end-of-text token (or whatever else the caller's options stop at). ``prediction`` is of the prompt; ``refreshes``
    says how often the set was chosen again; ``runtime`` who made the tokens; ``drafts`` what came of a lossless one's.
    """

    text: str
    prediction: Prediction
    prompt_tokens: int
    new_tokens: int
    stopped: Stopped
    first_token_s: float
    decode_s: float
    refreshes: int = 0
    runtime: str = "transformers"
    drafts: Drafts | None = None

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed, without prefill and the gathering of weights."""
        return (self.new_tokens - 1) / self.decode_s if self.new_tokens > 1 and self.decode_s > 0 else 0.0


def check_room(model: PreTrainedModel, tokens: int) -> None:
    """Refuse texts of more tokens, prompt and continuation together, than the model can attend to."""
    if tokens > (most := context_length(model)):
        raise CoreInferError(
            f"prompt and continuation have {tokens} tokens, the model's context holds {most}: lower one of them"
        )
