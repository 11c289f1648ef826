"""What a keep costs: the rise of the negative log-likelihood (NLL) when only the kept neurons continue a text.

Each text: P prompt tokens run dense, then C tokens of its true continuation are scored on a fixed neuron set (teacher
forcing). The prompt's tokens never count. The oracle ranks by the continuation's own statistic: what no policy can
know, and the bound for a fixed set. Scoring masks dropped neurons, which equals slicing (``slim``; tests show it).
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from coreinfer.artifact import GLOBAL
from coreinfer.capture import Capture
from coreinfer.engine import Engine
from coreinfer.errors import CoreInferError
from coreinfer.models import find_mlps
from coreinfer.neurons import NeuronSet, top
from coreinfer.policy import choose, score
from coreinfer.settings import Source, check_keep

LADDER = ("random", "global", "stability", "similarity", "hybrid", "auto", "oracle")
BATCH = 16


@dataclass(frozen=True)
class Rung:
    """One policy's loss over the texts, nats per continuation token; the interval is a 95% bootstrap over texts."""

    policy: str
    keep: float
    prompt_tokens: int
    continuation_tokens: int
    texts: int
    nll: float
    nll_rise: float
    ci_low: float
    ci_high: float
    recall: float


def evaluate(
    engine: Engine,
    texts: list[str],
    keeps: list[float],
    prompt_tokens: int = 64,
    continuation_tokens: int = 128,
    policies: tuple[str, ...] = LADDER,
    tick: Callable[[int], Any] = lambda n: None,
) -> list[Rung]:
    """Every policy at every keep, dense first. Texts shorter than P + C tokens are left out.

    Raises:
        CoreInferError: no text is long enough, or a keep outside (0, 1].
    """
    ids = _rows(engine, texts, prompt_tokens + continuation_tokens)
    plans = [_Scores(engine, batch, prompt_tokens) for batch in torch.split(ids, BATCH)]
    dense = np.concatenate([_losses(engine, plan.ids, prompt_tokens, None) for plan in plans])
    shape = (prompt_tokens, continuation_tokens, len(ids))
    rungs = [_rung("dense", 1.0, shape, dense, dense, 1.0)]
    for keep in map(check_keep, keeps):
        budgets = engine.artifact.budgets(keep)
        for policy in policies:
            losses, recalls = [], []
            for plan in plans:
                sets = [top(s, budgets) for s in plan.scores(policy)]
                best = [top(s, budgets) for s in plan.scores("oracle")]
                losses.append(_losses(engine, plan.ids, prompt_tokens, sets))
                recalls += [(a.mask() & b.mask()).sum() / b.mask().sum() for a, b in zip(sets, best, strict=True)]
                tick(len(plan.ids))
            rungs.append(_rung(policy, keep, shape, np.concatenate(losses), dense, float(np.mean(recalls))))
    return rungs


def _rows(engine: Engine, texts: list[str], length: int) -> torch.Tensor:
    encoded = [engine.tokenizer(text, truncation=True, max_length=length)["input_ids"] for text in texts]
    long = [row for row in encoded if len(row) == length]
    if not long:
        raise CoreInferError(
            f"none of {len(texts)} texts has the {length} tokens that prompt and continuation need: give longer texts "
            "or lower --prompt-tokens and --continuation-tokens"
        )
    return torch.tensor(long, device=engine.model.device)


def _rung(
    policy: str,
    keep: float,
    shape: tuple[int, int, int],
    losses: NDArray[np.float64],
    dense: NDArray[np.float64],
    recall: float,
) -> Rung:
    rise = losses - dense
    picks = np.random.default_rng(0).integers(0, len(rise), (1000, len(rise)))
    low, high = np.quantile(rise[picks].mean(1), (0.025, 0.975))
    numbers = [round(float(x), 5) for x in (losses.mean(), rise.mean(), low, high, recall)]
    return Rung(policy, keep, *shape, *numbers)


class _Scores:
    """The scores (L, F) of each text of a batch under each policy, from one dense pass."""

    def __init__(self, engine: Engine, ids: torch.Tensor, prompt_tokens: int) -> None:
        self.engine, self.ids, self.prompt_tokens = engine, ids, prompt_tokens
        prompts = engine.tokenizer.batch_decode(ids[:, :prompt_tokens], skip_special_tokens=True)
        self.matches = engine.match([p if p.strip() else "?" for p in prompts])
        real = (ids != engine._bos) if engine._bos is not None else torch.ones_like(ids, dtype=torch.bool)
        at = torch.arange(ids.shape[1], device=ids.device)[None]
        self.counts = (real & (at < prompt_tokens)).sum(1).tolist()
        self.prompt = self._shares(real & (at < prompt_tokens))
        self.future = self._shares(at.expand_as(ids) >= prompt_tokens)

    @torch.inference_mode()
    def _shares(self, valid: torch.Tensor) -> NDArray[np.float64]:
        with Capture(self.engine.model, self.engine.artifact.manifest.statistic) as capture:
            capture.expect(valid)
            self.engine.model.base_model(input_ids=self.ids, use_cache=False)
            return capture.shares()

    def scores(self, policy: str) -> Iterator[NDArray[np.float64]]:
        artifact = self.engine.artifact
        for i, match in enumerate(self.matches):
            if policy == "random":
                yield np.random.default_rng((int(self.ids[i].sum()), i)).random(self.prompt.shape[1:])
            elif policy == "oracle":
                yield self.future[i]
            elif policy == "global":
                yield artifact.prior(GLOBAL)
            else:
                source: Source = choose(match, policy, artifact.policy)[0]  # type: ignore[arg-type]
                prior = artifact.prior_of(match.clusters, match.similarities)
                yield score(source, prior, self.prompt[i], self.counts[i], artifact.policy.n0)


@torch.inference_mode()
def _losses(engine: Engine, ids: torch.Tensor, prompt_tokens: int, sets: list[NeuronSet] | None) -> NDArray[np.float64]:
    """Mean NLL of each text's continuation, (B,); each row has its own set after its prompt."""
    hooks = []
    if sets is not None:
        masks = torch.from_numpy(np.stack([s.mask() for s in sets])).to(ids.device)
        for layer, mlp in enumerate(find_mlps(engine.model)):
            hooks.append(mlp.down.register_forward_pre_hook(_masker(masks[:, layer], ids.shape, prompt_tokens)))
    try:
        logits = engine.model(input_ids=ids, use_cache=False).logits[:, prompt_tokens - 1 : -1].float()
    finally:
        for hook in hooks:
            hook.remove()
    losses = cross_entropy(logits.flatten(0, 1), ids[:, prompt_tokens:].flatten(), reduction="none")
    return losses.view(len(ids), -1).mean(1).double().cpu().numpy()


def _masker(mask: torch.Tensor, shape: torch.Size, prompt_tokens: int) -> Any:
    def hook(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        a = args[0].reshape(*shape, -1).clone()
        a[:, prompt_tokens:] *= mask[:, None].to(a.dtype)
        return (a.reshape(args[0].shape),)

    return hook


def as_rows(rungs: list[Rung]) -> list[dict[str, Any]]:
    """For JSON and Parquet."""
    return [asdict(rung) for rung in rungs]
