"""The measurement: batches of texts outermost, so that memory does not grow with their number; then prompt lengths,
policies, keeps. A batch's dense log-probabilities stay while every mask is scored against them.

A text whose set under one policy equals its set under another (``auto`` and what it chose) is scored once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coreinfer.capture import Reducer
from coreinfer.engine import Engine
from coreinfer.errors import CoreInferError
from coreinfer.evaluate.masked import Truth
from coreinfer.evaluate.partial import Batch, Partial
from coreinfer.evaluate.plan import Plan, Text
from coreinfer.evaluate.policies import Known, Rungs
from coreinfer.match import Match
from coreinfer.mlp import Mlp
from coreinfer.models import find_mlps
from coreinfer.neurons import places
from coreinfer.prompts import words_of_tokens
from coreinfer.refresh import blocks

ROOM = 256 << 20  # bytes of a batch's dense log-probabilities
LARGEST = 16  # texts in a batch; more is no faster on a CPU
WINDOW = 8  # continuation tokens of a position bin
Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class Results:
    """n texts at p prompt lengths under r rungs, a (keep, policy) pair each.

    Attributes:
        nll: the dense model's, nats per continuation token, (p, n).
        numbers: NLL rise, KL, agreement, recall, (p, r, n, 4).
        windows: NLL rise by position in the continuation, in windows of ``WINDOW`` tokens, (p, r, n, w).
        sources: what ``auto`` used, (p, n).
        similarities: cosine similarity of the prompt to its nearest cluster, (p, n).
    """

    plan: Plan
    texts: list[Text]
    rungs: list[tuple[float, str]]
    nll: Floats
    numbers: Floats
    windows: Floats
    sources: NDArray[np.str_]
    similarities: Floats


def batch_size(continuation_tokens: int, vocabulary: int) -> int:
    """Texts in a batch, by the bytes of its dense log-probabilities."""
    return int(np.clip(ROOM // (4 * continuation_tokens * vocabulary), 1, LARGEST))


def measure(
    engine: Engine,
    texts: list[Text],
    plan: Plan,
    rungs: Rungs,
    compare: Sequence[Engine] = (),
    partial: Partial | None = None,
    tick: Callable[[int], Any] = lambda n: None,
) -> Results:
    """Score every text; what ``partial`` holds already is taken from there, and what is made goes there.

    Raises:
        CoreInferError: a loss that is not a number, with the text's name.
    """
    pairs = [(keep, policy) for keep in plan.keeps for policy in rungs.policies]
    work, done = _Work([engine, *compare], rungs, plan, pairs), list[Batch]()
    size = batch_size(plan.continuation_tokens, engine.model.config.get_text_config().vocab_size)
    for number, start in enumerate(range(0, len(texts), size)):
        batch = texts[start : start + size]
        if partial is None or number not in partial.done:
            parts = [work.run(batch, prompt_tokens, tick) for prompt_tokens in plan.prompt_tokens]
            made: Batch = {"batch": number} | {name: [part[name] for part in parts] for name in parts[0]}
            if partial is not None:
                partial.add(number, made)
        else:
            made = partial.done[number]
            tick(len(batch) * len(plan.prompt_tokens) * len(pairs))
        done.append(made)
    return _together(plan, texts, pairs, done)


def _together(plan: Plan, texts: list[Text], pairs: list[tuple[float, str]], done: list[Batch]) -> Results:
    def joined(name: str, axis: int) -> Any:
        return np.concatenate([np.asarray(batch[name]) for batch in done], axis)

    return Results(
        plan, texts, pairs, joined("nll", 1), joined("numbers", 2), joined("windows", 2), joined("sources", 1),
        joined("similarities", 1),
    )  # fmt: skip


class _Work:
    """One batch at one prompt length -> lists of numbers, ready for JSON."""

    def __init__(self, engines: list[Engine], rungs: Rungs, plan: Plan, pairs: list[tuple[float, str]]) -> None:
        self.engines, self.engine, self.rungs, self.plan, self.pairs = engines, engines[0], rungs, plan, pairs
        self.mlps: list[Mlp] = find_mlps(self.engine.model)
        self.reducers = [Reducer(self.mlps, settings) for settings in rungs.wanted]

    def run(self, batch: list[Text], prompt_tokens: int, tick: Callable[[int], Any]) -> Batch:
        truth, known = self._look(batch, prompt_tokens, self.plan.continuation_tokens)
        numbers, windows = self._score(truth, known, tick)
        if self.plan.refresh:
            self._refreshed(batch, prompt_tokens, numbers, windows, tick)
        return {
            "nll": truth.nll.mean(1, dtype=np.float64).tolist(),
            "numbers": numbers.tolist(),
            "windows": windows.tolist(),
            "sources": [self.rungs.source("auto", known, i) for i in range(len(batch))],
            "similarities": [match.similarity for match in known.matches[0]],
        }

    def _look(self, batch: list[Text], prompt_tokens: int, length: int) -> tuple[Truth, Known]:
        """The texts cut into prompt and continuation, run dense, and what is then known of the prompts."""
        rows = np.stack([text.ids for text in batch])[:, : prompt_tokens + length]
        ids = torch.from_numpy(rows.astype(np.int64)).to(self.engine.model.device)
        truth = Truth(self.engine.model, self.mlps, ids, prompt_tokens, self.reducers)
        names = [text.name for text in batch]
        _check_numbers(truth.nll, names, "the dense loss")
        statistics = dict(zip(self.rungs.wanted, truth.statistics, strict=True))
        return truth, Known(names, self._matches(rows[:, :prompt_tokens]), statistics)

    def _matches(self, prompts: NDArray[np.int32]) -> list[list[Match]]:
        """By artifact; the embedder reads a prompt's text."""
        texts = words_of_tokens(self.engine.tokenizer, prompts.tolist())
        return [engine.match(texts) for engine in self.engines]

    def _score(self, truth: Truth, known: Known, tick: Callable[[int], Any]) -> tuple[Floats, Floats]:
        texts, best = len(known.names), {keep: self._masks("oracle", known, [keep])[0] for keep in self.plan.keeps}
        seen: dict[tuple[int, bytes], tuple[Floats, Floats]] = {}
        numbers = np.empty((len(self.pairs), texts, 4))
        windows = np.empty((len(self.pairs), texts, -(-self.plan.continuation_tokens // WINDOW)))
        for policy in self.rungs.plain:
            for keep, masks in zip(self.plan.keeps, self._masks(policy, known, self.plan.keeps), strict=True):
                at = self.pairs.index((keep, policy))
                for i, (three, bins) in enumerate(self._losses(truth, masks, known, policy, seen)):
                    wanted = best[keep][i]
                    numbers[at, i] = (*three, (masks[i] & wanted).sum() / wanted.sum())
                    windows[at, i] = bins
                tick(texts)
        return numbers, windows

    def _refreshed(
        self, batch: list[Text], prompt_tokens: int, numbers: Floats, windows: Floats, tick: Callable[[int], Any]
    ) -> None:
        """Fill in the rungs that are refreshed: each block of the continuation has all before it for a prompt."""
        schedule = blocks(self.plan.refresh, prompt_tokens, self.plan.continuation_tokens)
        parts = [self._block(batch, known, length) for known, length in schedule]
        for at, pair in enumerate(self.pairs):
            if pair[1] in self.rungs.refreshed:
                made = np.concatenate([block[pair] for block in parts], -1)  # (B, 4, C)
                numbers[at] = made.mean(-1)
                windows[at] = [_windows(rise) for rise in made[:, 0]]
                tick(len(batch))

    def _block(self, batch: list[Text], prompt_tokens: int, length: int) -> dict[tuple[float, str], Floats]:
        """Rise, KL, agreement, recall of each token of a block under each refreshed rung, (B, 4, length)."""
        if length == 1:  # predicted dense
            best = np.tile([[0.0], [0.0], [1.0], [1.0]], (len(batch), 1, 1))
            return {pair: best for pair in self.pairs if pair[1] in self.rungs.refreshed}
        truth, known = self._look(batch, prompt_tokens, length)
        out, names, keeps = dict[tuple[float, str], Floats](), known.names, self.plan.keeps
        oracle = self._masks("oracle", known, keeps)
        for policy in self.rungs.refreshed:
            for keep, masks, wanted in zip(keeps, self._masks(policy, known, keeps), oracle, strict=True):
                made = truth.losses(masks)
                _check_numbers(made.nll_rise, names, f"the loss of {policy}")
                recall = (masks & wanted).sum((1, 2)) / wanted.sum((1, 2))
                each = np.broadcast_to(recall[:, None], made.kl.shape)
                out[keep, policy] = np.stack([made.nll_rise, made.kl, made.agree, each], 1).astype(np.float64)
        return out

    def _masks(self, policy: str, known: Known, keeps: Sequence[float]) -> list[Masks]:
        """(B, L, F) at each keep; the scores are ranked once for all of them."""
        ranks = np.stack([places(self.rungs.scores(policy, known, i)) for i in range(len(known.names))])
        return [ranks < self.rungs.budgets(policy, keep)[:, None] for keep in keeps]

    def _losses(
        self, truth: Truth, masks: Masks, known: Known, policy: str, seen: dict[tuple[int, bytes], Any]
    ) -> list[tuple[Floats, Floats]]:
        """(rise, KL, agreement) and the rise by window of each text; ``seen`` holds those of equal sets."""
        keys = [(i, blake2b(np.packbits(mask).tobytes()).digest()) for i, mask in enumerate(masks)]
        fresh = [i for i, key in enumerate(keys) if key not in seen]
        if fresh:
            made = truth.losses(masks[fresh], fresh)
            _check_numbers(made.nll_rise, [known.names[i] for i in fresh], f"the loss of {policy}")
            columns = np.stack([made.nll_rise, made.kl, made.agree], 1).mean(2, dtype=np.float64)
            for i, three, rise in zip(fresh, columns, made.nll_rise, strict=True):
                seen[keys[i]] = three, _windows(rise.astype(np.float64))
        return [seen[key] for key in keys]


def _windows(rise: Floats) -> Floats:
    """Means over windows of positions; the last may be shorter."""
    edges = np.arange(0, len(rise), WINDOW)
    return np.add.reduceat(rise, edges) / np.diff([*edges, len(rise)])


def _check_numbers(values: NDArray[np.float32], names: list[str], what: str) -> None:
    """Refuse (B, C) values that are not finite, and name the text."""
    bad = ~np.isfinite(values)
    if bad.any():
        row, at = np.argwhere(bad)[0]
        raise CoreInferError(
            f"{what} on {names[row]!r} is {values[row, at]} at continuation token {at}: try --dtype float32, or check "
            "the model's weights"
        )
