"""Which clusters each text is near: k-means over the texts' embeddings, and the mixture weights of their beginnings.

Memory: the embeddings of all texts while clusters are made, 4 * d bytes a text; then 12 * 3 * m bytes a text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from coreinfer.artifact import Artifact
from coreinfer.embedder import Embedder
from coreinfer.errors import CoreInferError
from coreinfer.hub import DEFAULT
from coreinfer.match import make_index
from coreinfer.neurons import mixture_weights
from pipeline.adapt.packing import Row
from pipeline.adapt.settings import PriorSettings
from pipeline.cluster import assign, kmeans

SHORT, PREFIX, WHOLE = 0, 1, 2  # the views of a text: its first few tokens, its first 64, all of it
CLUSTERS, TEXTS_EACH = 128, 16  # K unless it is given: so many, or so many texts a cluster
PIECE = 4096  # texts embedded together, so that prefixes need not be held

Embed = Callable[[list[str]], NDArray[np.float32]]
Vectors = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Topics:
    """Per view and text the m nearest ``clusters``, int64 (views, n, m), and float32 ``weights`` that sum to 1."""

    clusters: Tensor
    weights: Tensor
    count: int

    def mixture(self, view: Tensor, text: Tensor) -> Tensor:
        """Views and texts (B, S) -> weights over all clusters, float32 (B, S, K)."""
        out = torch.zeros((*text.shape, self.count), device=text.device)
        return out.scatter_(-1, self.clusters[view, text], self.weights[view, text])

    @classmethod
    def none(cls, texts: int) -> "Topics":
        """One cluster for all texts: plain training embeds nothing."""
        return cls(torch.zeros(3, texts, 1, dtype=torch.long), torch.ones(3, texts, 1), 1)

    def to(self, device: str) -> "Topics":
        return Topics(self.clusters.to(device), self.weights.to(device), self.count)


def open_embedder(name: str | None, artifact: Path | None, device: str) -> tuple[Embedder, Vectors | None]:
    """The embedder, and the artifact's centroids (K, d) if one is given.

    Raises:
        CoreInferError: it cannot be loaded, or is not the artifact's.
    """
    if artifact is None:
        return Embedder(name or DEFAULT, device), None
    opened = Artifact.load(artifact)
    wanted = opened.manifest.embedder
    made = Embedder(name or wanted.id, device)
    if (made.identity.weights, made.identity.setup) != (wanted.weights, wanted.setup):
        raise CoreInferError(
            f"{artifact} was built with the embedder {wanted.id!r}, {made.name!r} is another: leave out --embedder"
        )
    return made, opened.centroids


def number_of_clusters(asked: int | None, texts: int) -> int:
    """K: what was asked for, else as many as the texts can fill."""
    return min(CLUSTERS, max(1, texts // TEXTS_EACH)) if asked is None else asked


def centroids_of(whole: Vectors, settings: PriorSettings, seed: int) -> Vectors:
    """Unit centroids (<= K, d) of the texts' embeddings (n, d); another seed finds others."""
    rows = np.arange(len(whole))
    k = number_of_clusters(settings.clusters, len(whole))
    return assign(whole, rows, kmeans(whole, rows, k, seed)).centroids


def beginnings(row: Row, texts: Sequence[int], tokens: int, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The first ``tokens`` tokens of some of a row's texts, as text."""
    pieces = [row.text(number)[:tokens] for number in texts]
    made: list[str] = tokenizer.batch_decode(pieces, skip_special_tokens=True)
    return made


def near(vectors: Vectors, centroids: Vectors, settings: PriorSettings) -> tuple[Tensor, Tensor]:
    """Unit vectors (n, d) -> the nearest clusters, int64 (n, m), and their weights, float32 (n, m)."""
    found = make_index(centroids).search(np.ascontiguousarray(vectors), min(settings.mixture, len(centroids)))
    weights = [mixture_weights(row, settings.sharpness) for row in found[0]]
    return torch.from_numpy(found[1].astype(np.int64)), torch.from_numpy(np.asarray(weights, np.float32))


def view(row: Row, tokens: int, embed: Embed, centroids: Vectors, settings: PriorSettings,
         tokenizer: PreTrainedTokenizerBase) -> tuple[Tensor, Tensor]:  # fmt: skip
    """``near`` of the first ``tokens`` tokens of every text of a row."""
    pieces = [range(at, min(at + PIECE, row.texts)) for at in range(0, row.texts, PIECE)]
    found = [near(embed(beginnings(row, some, tokens, tokenizer)), centroids, settings) for some in pieces]
    clusters, weights = zip(*found, strict=True)
    return torch.cat(clusters), torch.cat(weights)


def make_topics(
    texts: list[str], row: Row, tokenizer: PreTrainedTokenizerBase, embed: Embed, centroids: Vectors | None,
    settings: PriorSettings, seed: int,
) -> tuple[Topics, Vectors]:  # fmt: skip
    """Embed every text three times, whole and two beginnings of it -> the topics of all views, and the centroids."""
    whole = embed(texts)
    known = centroids_of(whole, settings, seed) if centroids is None else centroids
    starts = [view(row, tokens, embed, known, settings, tokenizer) for tokens in (settings.short, settings.prefix)]
    clusters, weights = zip(*starts, near(whole, known, settings), strict=True)  # in the order of the views' names
    return Topics(torch.stack(clusters), torch.stack(weights), len(known)), known
