"""Texts through the models with an eye on what goes wrong: numbers that are none, memory that runs out.

With fewer texts together than usual the last bits of a passage's numbers may be others, as on another processor.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coreinfer.embedder import Embedder
from coreinfer.errors import CoreInferError
from coreinfer.progress import Tick
from pipeline.embed import embed_texts
from pipeline.record import Batch, Recorder


class BadShard(CoreInferError):
    """A shard whose texts or numbers cannot be made."""


def embedded(texts: list[str], embedder: Embedder, together: int | None, tick: Tick) -> NDArray[np.float32]:
    """Their unit vectors (n, d), ``together`` texts at a time.

    Raises:
        BadShard: some are no numbers.
    """
    vectors = np.concatenate([embed_texts(some, embedder, tick) for some in _pieces(texts, together)])
    if not np.isfinite(vectors).all():
        raise BadShard("its embeddings are not all finite numbers")
    return vectors


@dataclass(frozen=True)
class Careful(Recorder):
    """A recorder that runs ``together`` texts at a time, and refuses shares that are no numbers: as integers they would
    spoil the sums of a whole cluster without a word.
    """

    together: int | None = None

    @classmethod
    def of(cls, recorder: Recorder, together: int | None) -> "Careful":
        return cls(**vars(recorder), together=together)

    def shares(self, texts: list[str]) -> Iterator[Batch]:
        """See ``Recorder``.

        Raises:
            BadShard: some are no numbers.
        """
        start = 0
        for some in _pieces(texts, self.together):
            for picked, shares, tokens in super().shares(some):
                if not np.isfinite(shares.sum()):  # none is negative, so their sum is as finite as they are
                    raise BadShard("its statistics are not all finite numbers (another --dtype may help)")
                yield picked + start, shares, tokens
            start += len(some)


def _pieces(texts: list[str], size: int | None) -> list[list[str]]:
    return [texts[at : at + size] for at in range(0, len(texts), size)] if size else [texts]
