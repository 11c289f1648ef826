"""Made-up embeddings beyond any corpus: unit vectors around topics, which lie around subjects, as passages' do.

A passage's embedding has, with its topic's direction, about the cosine that a sentence embedder's has with a fine
cluster's (0.7), and what sets it apart lies mostly in a few dimensions, as theirs does: isotropic noise would be a
harder space than any text makes.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coreinfer.embedder import unit
from pipeline.embed import write_vectors

Vectors = NDArray[np.float32]

RANK = 96  # dimensions in which embeddings differ
FALL = 0.4  # exponent by which one of them matters less than the last
SUBJECTS = 64  # topics of a subject
BLOCK = 1 << 16  # embeddings made at a time, each block from a seed of its own


class Synthetic:
    """``topics`` directions of ``dimension``, and any number of embeddings around them."""

    def __init__(self, topics: int, dimension: int = 384, seed: int = 0) -> None:
        self.dimension, self._seed, self._count = dimension, seed, topics

    @cached_property
    def topics(self) -> Vectors:
        """Unit vectors (t, d)."""
        rng = self._rng(0)
        subjects = unit(self._noise(rng, max(8, self._count // SUBJECTS)))
        return unit(subjects[rng.integers(0, len(subjects), self._count)] + 0.9 * self._noise(rng, self._count))

    def block(self, number: int, count: int = BLOCK) -> Vectors:
        """Embeddings (``count``, d), the same whenever they are asked for."""
        rng = self._rng(1 + number)
        return unit(self.topics[rng.integers(0, self._count, count)] + self._noise(rng, count))

    def write(self, path: Path, count: int) -> None:
        """``count`` of them into a .npy file, by the block."""
        sizes = (min(BLOCK, count - at) for at in range(0, count, BLOCK))
        blocks: Iterator[Vectors] = (self.block(number, size) for number, size in enumerate(sizes))
        write_vectors(path, count, self.dimension, blocks)

    def _noise(self, rng: np.random.Generator, count: int) -> Vectors:
        """(``count``, d), of norm about 1."""
        return np.asarray(rng.standard_normal((count, len(self._axes)), np.float32) @ self._axes, np.float32)

    @cached_property
    def _axes(self) -> Vectors:
        rank = min(RANK, self.dimension)
        weights = np.arange(1, rank + 1) ** -FALL
        turned = np.linalg.qr(self._rng(-1).normal(size=(self.dimension, self.dimension)))[0][:rank]
        return np.asarray(turned * (weights / np.linalg.norm(weights))[:, None], np.float32)

    def _rng(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, number + 1])
