"""New passages through a build's long stages, embed and record, shard by shard: what was done before is not done again.

The centroids are there already, so which cluster a passage belongs to is known once all are embedded.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.engine import Engine
from coreinfer.identity import identity
from coreinfer.progress import Stage
from pipeline.data import Candidates, Statistics
from pipeline.embed import open_vectors
from pipeline.kmeans import nearest_of, pieces
from pipeline.record import Recorder
from pipeline.shards import keys
from pipeline.shards.store import Facts
from pipeline.shards.tasks import Place
from pipeline.shards.work import Work
from pipeline.terms import sample_texts
from pipeline.updating.merging import moved


@dataclass(frozen=True)
class Recorded:
    """New passages: their clusters and similarities (n,), to the centroids (K, d) that all members have now as well;
    the sums of their shares, some texts of each cluster; what evidence says of shards whose last bits may be others.
    """

    labels: NDArray[np.int64]
    similarities: NDArray[np.float32]
    centroids: NDArray[np.float32]
    similarities_now: NDArray[np.float32]
    stats: Statistics
    texts: list[list[str]]
    spoilt: dict[str, Any]


def recorded(engine: Engine, recorder: Recorder, passages: Path, total: int, work: Work, stage: Stage) -> Recorded:
    """``total`` passages, embedded, each at its nearest centroid, and recorded; embeddings lie beside them then.

    Raises:
        CoreInferError: embeddings or statistics that are no finite numbers, or another shard that cannot be done.
    """
    artifact, at = engine.artifact, passages.with_name("embeddings.npy")
    place = Place(passages, work.plan(total, engine.device), engine.device)
    facts = _embed(engine, place, at, work, stage)
    labels, similarities = nearest_of(open_vectors(at), np.arange(total), artifact.centroids)
    stats = _record(engine, recorder, place, facts, labels, work, stage)
    sums = np.zeros(artifact.centroids.shape)
    for rows in pieces(total):
        np.add.at(sums, labels[rows], open_vectors(at)[rows])
    centroids = moved(artifact.centroids, artifact.quantiles, artifact.sizes, sums)
    now = [(open_vectors(at)[rows] * centroids[labels[rows]]).sum(1) for rows in pieces(total)]
    texts = sample_texts(passages, labels, artifact.manifest.clusters)
    return Recorded(labels, similarities, centroids, np.concatenate(now), stats, texts, _spoilt(work))


def _embed(engine: Engine, place: Place, out: Path, work: Work, stage: Stage) -> Facts:
    """All embeddings into ``out``; what decides them."""
    model = engine.embedder
    facts = keys.embed_facts(place.passages, place.plan, model.identity, model.encoder, place.device)
    store = work.embed(place, facts, model.name, model, partial(stage, "embed"))
    work.gather(store, place.plan, out, model.dimension)
    return facts


def _record(
    engine: Engine, recorder: Recorder, place: Place, embedded: Facts, labels: NDArray[np.int64], work: Work,
    stage: Stage,
) -> Statistics:  # fmt: skip
    """The sums of all passages, each in the cluster of its label (n,)."""
    options = Candidates([engine.artifact.centroids], labels[None].astype(np.int32))
    model = identity(engine.model_name, recorder.model, recorder.tokenizer, recorder.max_tokens)
    facts = keys.record_facts(
        embedded, options, model, recorder.settings, recorder.reduced_by, place.device, engine.artifact.manifest.seed
    )
    store = work.record(place, facts, options, model.id, model.dtype, recorder, partial(stage, "record"))
    return work.sums(store, place.plan, (options.rows[-1].stop, *recorder.shape))


def _spoilt(work: Work) -> dict[str, Any]:
    """Mostly nothing."""
    return {"in_smaller_batches": fewer} if (fewer := work.in_smaller_batches) else {}
