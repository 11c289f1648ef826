"""A stage in one pass over a corpus, without shards: what shards are compared with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.embedder import Embedder
from coreinfer.progress import Tick
from pipeline.data import Statistics
from pipeline.embed import embed_texts, write_vectors
from pipeline.passages import read_windows
from pipeline.record import Recorder, record_texts


def embed_passages(passages: Path, count: int, embedder: Embedder, out: Path, tick: Tick = lambda n: None) -> None:
    pieces = (embed_texts(texts, embedder, tick) for _, texts in read_windows(passages))
    write_vectors(out, count, embedder.dimension, pieces)


def record(
    passages: Path, labels: NDArray[np.integer], clusters: int, recorder: Recorder,
    tick: Callable[[int], Any] = lambda n: None,
) -> Statistics:  # fmt: skip
    """``labels`` (m, n): m clusterings, whose ``clusters`` are numbered through. -1: held out, or another shard's."""
    out = Statistics.zeros(clusters, *recorder.shape)
    for start, texts in read_windows(passages):
        record_texts(texts, labels[:, start : start + len(texts)], recorder, out, tick)
    return out
