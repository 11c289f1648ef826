"""What a mask costs a text: prompt dense, its true continuation (teacher forcing) with dropped neurons at zero.

The prompt runs once and its key-value cache serves every mask, so its tokens run dense and never count. Zeroing the
activation of a dropped neuron equals gathering the weights of the kept ones (``slim``; tests show it).

Shapes: B texts of P prompt and C continuation tokens, L layers of F neurons. Continuation token 0 is predicted by the
prompt's last position, which is dense, as in generation: its rise is 0. The last token is predicted and never fed.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from coreinfer.capture import Reducer, valid_tokens
from coreinfer.mlp import Mlp, watching
from coreinfer.models import bos_of, decoder_of
from coreinfer.turns import alone


@dataclass(frozen=True)
class Statistics:
    """One statistic of B texts, normalised to sum 1 in each layer.

    ``prompt`` and ``continuation``: float64 (B, L, F), the latter over the C - 1 tokens that run on kept neurons.
    ``tokens``: int64 (B,), the prompt tokens behind the former; beginning-of-text says nothing and is left out.
    """

    prompt: NDArray[np.float64]
    continuation: NDArray[np.float64]
    tokens: NDArray[np.int64]


@dataclass(frozen=True)
class Losses:
    """What masks cost, float32 (B, C) each.

    ``nll_rise``: NLL over the dense model's, nats. ``kl``: KL(dense || sparse), nats. ``agree``: 1 where both find the
    same token likeliest, else 0.
    """

    nll_rise: NDArray[np.float32]
    kl: NDArray[np.float32]
    agree: NDArray[np.float32]


class Truth:
    """B texts run dense, once; then any mask is scored against that.

    Args:
        ids: (B, P + C), no padding, C >= 2.
        reducers: of the statistics wanted; ``statistics`` holds one of each.

    Attributes:
        nll: the dense model's NLL of each continuation token, float32 (B, C), nats.

    Memory: 4 * B * C * V bytes of dense log-probabilities, V the vocabulary, and the prompts' cache.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        mlps: list[Mlp],
        ids: Tensor,
        prompt_tokens: int,
        reducers: Sequence[Reducer] = (),
    ) -> None:
        assert ids.shape[1] >= prompt_tokens + 2, "a continuation of one token never runs on the kept neurons"
        self.model, self.mlps, self._reducers = model, mlps, reducers
        self.prompt, self.continuation = ids[:, :prompt_tokens], ids[:, prompt_tokens:]
        with alone(decoder_of(model), "Truth", ends=True), torch.inference_mode():
            self._dense()

    def _dense(self) -> None:
        valid = valid_tokens(self.prompt, None, bos_of(self.model))
        fed = self.continuation[:, :-1]
        out, prompt = self._run(self.prompt, None, 1, valid)
        first = out.logits[:, -1:].float().log_softmax(-1)
        self._cache = deepcopy(out.past_key_values)
        out, continuation = self._run(fed, out.past_key_values, fed.shape[1], torch.ones_like(fed, dtype=torch.bool))
        self._log = out.logits.float().log_softmax(-1)
        self._nll = -torch.cat([first, self._log], 1).gather(-1, self.continuation[..., None])[..., 0]
        self.nll: NDArray[np.float32] = self._nll.cpu().numpy()
        tokens = valid.sum(1).cpu().numpy()
        self.statistics = [Statistics(p, c, tokens) for p, c in zip(prompt, continuation, strict=True)]

    def _run(self, ids: Tensor, cache: Any, kept: int, valid: Tensor) -> tuple[Any, list[NDArray[np.float64]]]:
        """A dense forward that every reducer watches."""
        for reducer in self._reducers:
            reducer.attach()
            reducer.expect(valid)
        try:
            out = _forward(self.model, ids, cache, kept)
            return out, [reducer.shares() for reducer in self._reducers]
        finally:
            for reducer in self._reducers:
                reducer.detach()

    @torch.inference_mode()
    def losses(self, masks: NDArray[np.bool_], rows: Sequence[int] | None = None) -> Losses:
        """Score ``masks`` bool (b, L, F), one for each of the texts ``rows`` (all B of them unless given)."""
        at = torch.arange(len(self.prompt)) if rows is None else torch.tensor(rows, dtype=torch.long)
        at = at.to(self.prompt.device)
        scored = [self._score(int(row), one) for row, one in zip(at, self._sparse(masks, at), strict=True)]
        rises, kls, agrees = zip(*scored, strict=True)
        return Losses(_with_first(rises, 0), _with_first(kls, 0), _with_first(agrees, 1))

    @torch.inference_mode()
    def rises(self, masks: NDArray[np.bool_]) -> NDArray[np.float32]:
        """``losses(masks).nll_rise`` alone, (B, C): without KL, which takes longer where the vocabulary is large."""
        logits = self._sparse(masks, torch.arange(len(self.prompt), device=self.prompt.device))
        pairs = zip(logits, self.continuation[:, 1:], self._nll[:, 1:], strict=True)
        return _with_first(tuple(cross_entropy(one.float(), ids, reduction="none") - nll for one, ids, nll in pairs), 0)

    def _sparse(self, masks: NDArray[np.bool_], at: Tensor) -> Tensor:
        """Logits (b, C - 1, V) of the texts ``at`` (b,) on what their masks keep."""
        cache, fed = deepcopy(self._cache), self.continuation[at, :-1]  # a forward adds to the cache
        cache.batch_select_indices(at)
        with alone(decoder_of(self.model), "Truth", ends=True), _masked(self.mlps, masks, fed):
            made: Tensor = _forward(self.model, fed, cache, fed.shape[1]).logits
        return made

    def _score(self, row: int, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(rise, KL, agreement), (C - 1,) each, of one text: a vocabulary of 262,144 leaves no room for several."""
        dense, sparse = self._log[row], logits.float().log_softmax(-1)
        nll = -sparse.gather(-1, self.continuation[row, 1:, None])[:, 0]
        agree = (dense.argmax(-1) == sparse.argmax(-1)).float()
        kl = (dense - sparse).mul_(dense.exp()).sum(-1).clamp_min(0)
        return nll - self._nll[row, 1:], kl, agree


def _with_first(rows: tuple[Tensor, ...], first: int) -> NDArray[np.float32]:
    """(C - 1,) of each text -> (B, C), with what the dense prediction of the first token gets."""
    rest = torch.stack(rows).cpu().numpy()
    return np.concatenate([np.full_like(rest[:, :1], first), rest], 1)


def _forward(model: PreTrainedModel, ids: Tensor, cache: Any, kept: int) -> Any:
    """Logits of the last ``kept`` tokens only, where the model can leave out the others."""
    some = {"logits_to_keep": kept} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    return cast(Any, model)(input_ids=ids, past_key_values=cache, use_cache=True, **some)


@contextmanager
def _masked(mlps: list[Mlp], masks: NDArray[np.bool_], ids: Tensor) -> Iterator[None]:
    """Zero what each text's mask drops, at every position of ``ids`` (b, T)."""
    dropped = torch.from_numpy(~masks).to(ids.device)
    with watching(mlps, lambda layer: _zero(dropped[:, layer, None], ids)):
        yield


def _zero(dropped: Tensor, ids: Tensor) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Tensor]]:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor]:
        a = args[0].reshape(*ids.shape, -1)  # OPT hands over (B * T, F)
        return (a.masked_fill(dropped, 0).reshape(args[0].shape),)

    return hook
