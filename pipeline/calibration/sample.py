"""Held-out texts under any plan of what to keep: the loss that each plan costs each text.

Shapes: B texts of a batch, P prompt and C continuation tokens, K clusters, L layers of F neurons.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from coreinfer.artifact import Artifact
from coreinfer.capture import Reducer
from coreinfer.embedder import Embedder
from coreinfer.evaluate.masked import Statistics, Truth
from coreinfer.match import make_index, nearest
from coreinfer.models import find_mlps
from coreinfer.neurons import places
from coreinfer.prompts import words_of_tokens
from coreinfer.settings import Source
from pipeline.heap import give_back

LOGITS = 1 << 28  # bytes of dense log-probabilities that a batch may take
MOST = 16  # texts in a batch


@dataclass(frozen=True)
class Lab:
    """What measuring needs. The artifact's statistic is taken of the prompts; its numbers are what a plan replaces."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    embedder: Embedder
    artifact: Artifact


@dataclass(frozen=True)
class Case:
    """A batch of texts, run dense: all clusters by similarity, ``clusters`` and ``similarities`` (B, K) each."""

    truth: Truth
    clusters: NDArray[np.int64]
    similarities: NDArray[np.float32]
    _ranks: dict[Any, NDArray[np.int32]] = field(default_factory=dict)

    @property
    def statistics(self) -> Statistics:
        return self.truth.statistics[0]

    def ranks(self, artifact: Artifact, source: Source, skip: int = 0) -> NDArray[np.int32]:
        """Each neuron's place in its layer, best first, (B, L, F); ``skip`` leaves out so many nearest clusters.

        A prompt without its nearest clusters stands for one from outside the corpus: its best match is weaker.
        """
        key = (artifact.policy, id(artifact.sensitivity), source, skip)  # plans keep their artifacts alive
        if key not in self._ranks:
            self._ranks[key] = np.stack([self._places(i, artifact, source, skip) for i in range(len(self.clusters))])
        return self._ranks[key]

    def _places(self, text: int, artifact: Artifact, source: Source, skip: int) -> NDArray[np.int32]:
        prior, tokens = self._prior(text, artifact, skip), int(self.statistics.tokens[text])
        similarity, prompt = float(self.similarities[text, skip]), self.statistics.prompt[text]
        scores = artifact.scores(source, similarity, prior, prompt, tokens)
        return places(scores * artifact.sensitivity)

    def _prior(self, text: int, artifact: Artifact, skip: int) -> NDArray[np.float64]:
        near = slice(skip, skip + artifact.policy.mixture)
        return artifact.prior_of(self.clusters[text, near], self.similarities[text, near])

    def doubts(self, artifact: Artifact) -> list[float]:
        """How far each prompt disagrees with its match."""
        priors = [self._prior(text, artifact, 0) for text in range(len(self.clusters))]
        return [artifact.doubt(self.statistics.prompt[text], prior) for text, prior in enumerate(priors)]


Plan = Callable[[Case], NDArray[np.bool_]]  # which neurons each text keeps, (B, L, F)


def batch_size(model: PreTrainedModel, continuation: int) -> int:
    """How many texts run together, by the dense log-probabilities of so many tokens of each."""
    return max(1, min(MOST, LOGITS // (4 * continuation * int(model.config.get_text_config().vocab_size))))


def cases(lab: Lab, ids: torch.Tensor, prompt_tokens: int) -> Iterator[Case]:
    """The texts ``ids`` (n, P + C) in batches, dense, one after another: memory does not grow with their number."""
    index, mlps = make_index(lab.artifact.centroids, exact=True), find_mlps(lab.model)
    reducer = Reducer(mlps, lab.artifact.manifest.statistic)
    for some in torch.split(ids, batch_size(lab.model, ids.shape[1] - prompt_tokens)):
        vectors = lab.embedder.embed(words_of_tokens(lab.tokenizer, some[:, :prompt_tokens]))
        matches = nearest(index, vectors, len(lab.artifact.centroids))
        clusters, similarities = np.stack([m.clusters for m in matches]), np.stack([m.similarities for m in matches])
        truth = Truth(lab.model, mlps, some.to(lab.model.device), prompt_tokens, [reducer])
        yield Case(truth, clusters, similarities)


def rises(
    some: Iterator[Case], plans: Sequence[Plan], tick: Callable[[int], Any] = lambda n: None
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """The mean NLL rise of each text under each plan, (n, plans), nats per token; the texts' similarities (n, K)."""
    rows, near = list[NDArray[np.float64]](), list[NDArray[np.float32]]()
    for case in some:
        columns = list[NDArray[np.float64]]()
        for plan in plans:
            columns.append(case.truth.rises(plan(case)).mean(1, dtype=np.float64))
            tick(len(case.clusters))
        rows.append(np.stack(columns, 1))
        near.append(case.similarities)
        give_back()
    return np.concatenate(rows), np.concatenate(near)
