"""Losses on held-out texts: dense, and on the neurons that similarity and stability keep after a short prompt.

Nats per token. Similarity is n0 = infinity with the mixture of the prompt's embedding; stability is n0 = 0.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from coreinfer.errors import CoreInferError
from pipeline.adapt.draws import make_plan
from pipeline.adapt.objective import logits_of, token_losses
from pipeline.adapt.packing import Row, Windows
from pipeline.adapt.trainer import Trainer

PROMPT, TIMES = 64, 3  # a prompt's tokens, and how many times as long a text is read with its continuation
KEEPS = (0.4, 0.2)
LEAST, MOST = 8, 256  # a prompt's fewest tokens; texts and windows measured on


@dataclass(frozen=True)
class Losses:
    """After ``step`` steps: ``dense`` over whole windows; ``continued``, dense too, after prompts of ``prompt`` tokens;
    there also on core neurons, by policy and keep. Similarity is missing where the priors have learned nothing.
    """

    step: int
    dense: float
    prompt: int
    continued: float
    similarity: dict[str, float] | None
    stability: dict[str, float]

    def sentence(self) -> str:
        """All of it in one line, the masked losses as rises over dense."""
        policies = {"similarity": self.similarity, "stability": self.stability}
        rises = "; ".join(
            f"{name} " + ", ".join(f"{loss - self.continued:+.3f} at keep {keep}" for keep, loss in losses.items())
            for name, losses in policies.items()
            if losses is not None
        )
        return f"held out {self.dense:.4f} dense; after {self.prompt}-token prompts {self.continued:.4f}, {rises}"

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def prompt_tokens(row: Row, context: int) -> int:
    """How many tokens of each held-out text stand for a prompt: ``PROMPT``, fewer where texts or windows are short.

    Raises:
        CoreInferError: all texts are too short.
    """
    longest = int(row.starts.diff().max())
    prompt = min(PROMPT, longest // 2, context // 2)
    if prompt < LEAST:
        raise CoreInferError(
            f"the longest held-out text has {longest} tokens, a prompt and its continuation take {2 * LEAST}: give "
            "longer texts to --held-out"
        )
    return prompt


class HeldOut:
    """Held-out texts, ready to be measured on: ``windows`` (w, T + 1) of all their tokens; ``texts`` (n, X), beginnings
    of those that go on after the prompt, padded with -100; and the prompts' ``mixture`` (n, K).
    """

    def __init__(self, row: Row, prompt: int, mixture: tuple[Tensor, Tensor], clusters: int, context: int) -> None:
        self.prompt = prompt
        long_enough = row.starts.diff() >= prompt + prompt // 4
        chosen = torch.nonzero(long_enough)[:MOST, 0].tolist()
        read = min(context, TIMES * prompt) + 1
        texts = [torch.tensor(row.text(number)[:read]) for number in chosen]
        self.texts = pad_sequence(texts, batch_first=True, padding_value=-100)
        nearest, weights = (x[chosen] for x in mixture)
        self.mixture = torch.zeros(len(chosen), clusters).scatter_(-1, nearest, weights)
        length = min(context, len(row.ids) - 1)
        self.windows = row.ids.unfold(0, length + 1, length)[:MOST].long()

    def to(self, device: str) -> "HeldOut":
        """Moved in place."""
        self.texts, self.mixture, self.windows = (x.to(device) for x in (self.texts, self.mixture, self.windows))
        return self


@torch.no_grad()
def measure(trainer: Trainer, held: HeldOut) -> Losses:
    """All of the losses, of the model as it is now."""
    dense = _mean([token_losses(logits_of(trainer.model, ids, trainer.dtype), ids) for ids in _batches(held.windows)])
    policies = {
        name: {f"{keep:g}": _continued(trainer, held, keep, n0) for keep in KEEPS}
        for name, n0 in (("similarity", float("inf")), ("stability", 0.0))
        if name != "similarity" or (trainer.step and trainer.settings.masks.share)
    }
    continued = _continued(trainer, held, 1.0, 0.0)
    return Losses(trainer.step, dense, held.prompt, continued, policies.get("similarity"), policies["stability"])


def _continued(trainer: Trainer, held: HeldOut, keep: float, n0: float) -> float:
    """Mean loss of what follows the prompts, on the neurons kept."""
    columns, out, at = trainer.columns(), list[Tensor](), 0
    for padded in _batches(held.texts):
        ids = padded.clamp_min(0)
        mixture, at = held.mixture[at : at + len(ids), None], at + len(ids)
        trainer.masks.start(_plan(trainer, ids, mixture, held.prompt, keep, n0), trainer.priors.shares, columns)
        try:
            losses = token_losses(logits_of(trainer.model, ids, trainer.dtype), ids)
        finally:
            trainer.masks.stop()
        out.append(losses[:, held.prompt - 1 :][padded[:, held.prompt :] >= 0])
    return _mean(out)


def _plan(trainer: Trainer, ids: Tensor, mixture: Tensor, prompt: int, keep: float, n0: float) -> Any:
    """Each text is one segment, masked after the prompt."""
    count, length = ids.shape[0], ids.shape[1] - 1
    place = torch.arange(length, device=ids.device).expand(count, length)
    nothing = torch.zeros(count, 1, dtype=torch.long, device=ids.device)
    windows = Windows(ids, torch.zeros_like(place), place, nothing)
    kept = torch.full((count,), max(1, round(keep * trainer.batches.width)), device=ids.device)
    return make_plan(
        windows, nothing + prompt, nothing[:, 0] == 0, mixture, torch.full((count,), n0, device=ids.device), kept,
        trainer.bos,
    )  # fmt: skip


def _batches(windows: Tensor) -> tuple[Tensor, ...]:
    return torch.split(windows, 8 if windows.device.type == "cpu" else 32)


def _mean(losses: list[Tensor]) -> float:
    return float(torch.cat([x.flatten() for x in losses]).mean())
