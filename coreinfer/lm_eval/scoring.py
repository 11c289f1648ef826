"""What a continuation costs: its context dense, as a prompt, and its own tokens on the neurons that the context needs.

So the first token of a continuation is predicted dense, and every later one by positions that ran on the kept neurons,
as decoding would have it.
"""

from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy

from coreinfer.engine import Engine
from coreinfer.models import context_length
from coreinfer.neurons import NeuronSet
from coreinfer.planning import Planned
from coreinfer.policy import Prediction
from coreinfer.prompts import words_of_tokens
from coreinfer.settings import Policy
from coreinfer.slimming import slim


class Scorer:
    """Scores continuations by an engine's model under one policy and keep (None: the artifact's)."""

    def __init__(self, engine: Engine, policy: Policy = "auto", keep: float | None = None) -> None:
        self.engine, self.policy, self.keep = engine, policy, keep
        self._last: tuple[tuple[int, ...], Planned] | None = None  # choices of one question share their context

    @property
    def longest(self) -> int:
        """Tokens of context and continuation together, whose last is predicted and never fed."""
        return context_length(self.engine.model) + 1

    def score(self, context: Sequence[int], continuation: Sequence[int]) -> tuple[float, bool]:
        """The log-likelihood of token ids behind others, nats, and whether each was the likeliest.

        Of what is longer than the model's context, the end counts.
        """
        whole = [*context, *continuation][-self.longest :]
        new = min(len(continuation), len(whole) - 1)
        prompt = len(whole) - new
        planned = self._planned(whole[:prompt])
        ids = torch.tensor([whole[:-1]], device=self.engine.model.device)
        with slim(
            self.engine.model, planned.wanted, prompt_tokens=prompt, statistic=self.engine.artifact.manifest.statistic
        ) as model, torch.inference_mode():  # fmt: skip
            logits = model(input_ids=ids, use_cache=True).logits[0, prompt - 1 :].float()
        wanted = torch.tensor(whole[prompt:], device=logits.device)
        loss = cross_entropy(logits, wanted, reduction="none").double().sum()
        return -float(loss), bool((logits.argmax(-1) == wanted).all())

    def prediction(self) -> Prediction | None:
        """What the last context's neurons were, and why."""
        return None if self._last is None else self._last[1].prediction

    def _planned(self, prompt: list[int]) -> Planned:
        """Decided anew for each context; by then it may hold its neurons already."""
        key = tuple(prompt)
        if self._last is None or self._last[0] != key:
            [text] = words_of_tokens(self.engine.tokenizer, [prompt])
            self._last = key, self.engine.planned(text, self.policy, self.keep)
        return self._last[1]

    def neurons(self) -> NeuronSet | None:
        """The last context's."""
        made = self.prediction()
        return None if made is None else made.neurons
