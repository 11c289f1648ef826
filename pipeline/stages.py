"""The long stages of one corpus: embed, cluster, record; for a whole build, or for one machine's part of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cluster import candidates
from pipeline.corpus import Corpus
from pipeline.data import Candidates, Statistics
from pipeline.embed import open_vectors
from pipeline.settings import BuildSettings
from pipeline.shards import keys
from pipeline.shards.store import Facts, Store
from pipeline.shards.tasks import Place
from pipeline.shards.work import Work
from pipeline.stopwatch import Stopwatch


class Stages:
    """What each stage of a build hands to the next."""

    def __init__(self, settings: BuildSettings, corpus: Corpus, work: Work, watch: Stopwatch, scratch: Path) -> None:
        self.settings, self.corpus, self.work, self.watch = settings, corpus, work, watch
        self.vectors = scratch / "embeddings.npy"
        self.plan = work.plan(corpus.total, settings.device)
        self.place = Place(corpus.passages, self.plan, settings.device)
        self.facts = keys.embed_facts(corpus.passages, self.plan, corpus.embedder, settings.device)

    def embed(self) -> Store:
        """What is not embedded yet; ``vectors_of`` gathers it."""
        return self.work.embed(
            self.place, self.facts, self.settings.embedder, self.corpus.embedder, self._shown("embed")
        )

    def cluster(self, embedded: Store) -> Candidates:
        """All clusterings that are tried, of all embeddings."""
        self.watch.show("cluster")
        self.work.gather(embedded, self.plan, self.vectors, self.corpus.embedder.dimension)
        ks, kept, seed = self.corpus.ks, self.corpus.parts.kept, self.settings.seed
        facts = keys.cluster_facts(self.facts, kept, ks, seed)
        return self.work.cluster(embedded, facts, lambda: candidates(self.open_vectors(), kept, ks, seed))

    def open_vectors(self) -> NDArray[np.float32]:
        """The embeddings of the whole corpus (n, d), once they are gathered."""
        return open_vectors(self.vectors)

    def record(self, options: Candidates) -> Store:
        """What is not recorded yet."""
        made, recorder = self.settings, self.corpus.recorder
        facts: Facts = keys.record_facts(self.facts, options, recorder, made.model, made.device, made.seed)
        return self.work.record(self.place, facts, options, made.model, made.dtype, recorder, self._shown("record"))

    def sums(self, recorded: Store, options: Candidates) -> Statistics:
        """All that was recorded, of the whole corpus."""
        return self.work.sums(recorded, self.plan, (options.rows[-1].stop, *self.corpus.recorder.shape))

    def _shown(self, stage: str) -> Callable[[int], Any]:
        return lambda passages: self.watch.start(stage, passages)
