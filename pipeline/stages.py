"""The long stages of one corpus: embed, cluster, record; for a whole build, or for one machine's part of it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import speed
from pipeline.cluster import candidates
from pipeline.corpus import Corpus
from pipeline.data import Candidates, Statistics
from pipeline.embed import open_vectors
from pipeline.passages import read_windows
from pipeline.shards import keys, parts
from pipeline.shards.store import Facts, Store
from pipeline.shards.tasks import Place
from pipeline.shards.work import Work
from pipeline.stopwatch import Stopwatch


class Stages:
    """What each stage of a build hands to the next."""

    def __init__(self, corpus: Corpus, work: Work, watch: Stopwatch) -> None:
        self.corpus, self.work, self.watch, settings = corpus, work, watch, corpus.settings
        self.done = dict[str, int]()  # passages of each long stage, in this run
        self.vectors = corpus.passages.with_name("embeddings.npy")
        self.plan = work.plan(corpus.total, settings.device)
        self.place = Place(corpus.passages, self.plan, settings.device)
        self.facts = keys.embed_facts(corpus.passages, self.plan, corpus.embedder_identity, settings.device)

    @property
    def begun(self) -> bool:
        """Whether some of it was done before."""
        return self.work.folder("embed", self.facts, self.place).exists()

    def embed(self) -> Store:
        """What is not embedded yet; ``cluster`` gathers it."""
        return self.work.embed(
            self.place, self.facts, self.corpus.settings.embedder, self.corpus.embedder, self._shown("embed")
        )

    def find_embeddings(self) -> Store:
        """Those of all machines, which must be there."""
        return self.work.find_embeddings(self.place, self.facts)

    def cluster(self, embedded: Store) -> Candidates:
        """All clusterings that are tried, of all embeddings."""
        self.watch.show("cluster")
        self.work.gather(embedded, self.plan, self.vectors, self.corpus.embedder.dimension)
        ks, kept, seed = self.corpus.ks, self.corpus.parts.kept, self.corpus.settings.seed
        facts = keys.cluster_facts(self.facts, kept, ks, seed)
        return self.work.cluster(embedded, facts, lambda: candidates(self.open_vectors(), kept, ks, seed))

    def open_vectors(self) -> NDArray[np.float32]:
        """The embeddings of the whole corpus (n, d), once they are gathered."""
        return open_vectors(self.vectors)

    def record(self, options: Candidates) -> Store:
        """What is not recorded yet."""
        made, recorder = self.corpus.settings, self.corpus.recorder
        facts: Facts = keys.record_facts(
            self.facts, options, self.corpus.model_identity, recorder.settings, made.device, made.seed
        )
        return self.work.record(self.place, facts, options, made.model, made.dtype, recorder, self._shown("record"))

    def sums(self, recorded: Store, options: Candidates) -> Statistics:
        """All that was recorded, of the whole corpus."""
        return self.work.sums(recorded, self.plan, (options.rows[-1].stop, *self.corpus.recorder.shape))

    def embedded(self, store: Store) -> int:
        """How many shards are embedded, by whomever."""
        return len(parts.embedded(store, self.plan))

    def recorded(self, store: Store) -> int:
        """How many shards are recorded, by whomever."""
        return sum(len(running.shards) for running in parts.disjoint(store)[0])

    def _shown(self, stage: str) -> Callable[[int], Any]:
        def start(passages: int) -> Any:
            self.done[stage] = passages
            return self.watch.start(stage, passages)

        return start

    def speeds(self) -> dict[str, speed.Speed]:
        """Of the long stages that did anything, once they are over."""
        corpus = self.corpus
        texts = next(read_windows(corpus.passages))[1]
        some = texts[:: max(1, len(texts) // speed.SAMPLE)]
        works = {"embed": speed.embedding(corpus.embedder, some), "record": speed.recording(corpus.recorder, some)}
        done = {name: count for name, count in self.done.items() if count and self.watch.seconds[name] > 0}
        return {
            name: speed.speed(work, count, self.watch.seconds[name])
            for name, count in done.items()
            if (work := works[name]) is not None
        }
