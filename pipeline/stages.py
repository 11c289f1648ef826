"""The long stages of one corpus: embed, cluster, record; for a whole build, or for one machine's part of it."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.errors import CoreInferError
from coreinfer.progress import Gauge
from coreinfer.settings import StatisticSettings
from coreinfer.wording import counted
from pipeline.calibration.statistic import LEAST
from pipeline.cluster import candidates
from pipeline.corpus import Corpus, with_statistic
from pipeline.data import Candidates, Remember, Statistics, forget
from pipeline.embed import open_vectors
from pipeline.record import Recorder
from pipeline.shards import keys, parts
from pipeline.shards.store import Facts, Store, key_of
from pipeline.shards.tasks import Place
from pipeline.shards.work import Work
from pipeline.speed import SAMPLE, Speed, embedding, recording, speed
from pipeline.stopwatch import Stopwatch

WORTH = 60  # seconds of the long stages after which those of a comparison do not matter


def remembering(corpus: Corpus, work: Work) -> Callable[[Facts], Remember]:
    """Facts -> where the measurements that they decide are kept, of a corpus that is measured on."""
    if not corpus.settings.calibrate or len(corpus.ids) < LEAST:
        return lambda facts: forget
    device = corpus.settings.device
    recorder = replace(corpus.recorder, settings=StatisticSettings())  # the same before the statistic is chosen
    facts = keys.measure_facts(corpus.model_identity, corpus.ids.numpy(), recorder.reduced_by, device)
    return work.measured(facts, place_of(corpus, work)).under


def with_chosen_statistic(corpus: Corpus, work: Work, watch: Stopwatch) -> Corpus:
    """With the statistic to record, measured unless one was asked for or it was measured before."""
    return with_statistic(corpus, watch.start, lambda: remembering(corpus, work)({}))


def place_of(corpus: Corpus, work: Work) -> Place:
    """Where the shards of a corpus are cut from."""
    return Place(corpus.passages, work.plan(corpus.total, corpus.settings.device), corpus.settings.device)


class Stages:
    """What each stage of a build hands to the next."""

    def __init__(self, corpus: Corpus, work: Work, watch: Stopwatch) -> None:
        self.corpus, self.work, self.watch, settings = corpus, work, watch, corpus.settings
        self.vectors = corpus.passages.with_name("embeddings.npy")
        self.place = place_of(corpus, work)
        self.plan = self.place.plan
        self.lost: NDArray[np.int64] = np.array([], np.int64)  # passages of bad shards
        if corpus.counts.bad_files:
            work.bad["read passages"] = dict(enumerate(corpus.counts.bad_files.values()))
        self.facts = keys.embed_facts(
            corpus.passages, self.plan, corpus.embedder_identity, corpus.embedder.encoder, settings.device
        )

    @cached_property
    def recorder(self) -> Recorder:
        """What records the corpus; what measures on held-out texts is the corpus's own."""
        return self.corpus.recorder.for_corpus(self.corpus.total, self.corpus.settings.compiled)

    def left(self) -> tuple[int, int]:
        """How many passages are not embedded yet, and how many not recorded; nothing is begun or changed for that."""
        embedded, found = self._store("embed", self.facts), set[int]()
        key = key_of(self._cluster_facts)
        if (options := parts.read_clusters(parts.clusters_at(embedded, key), key)) is not None:
            found = self._recorded(self._store("record", self._record_facts(options)))
        each = parts.embedded(embedded, self.plan), found
        embed, record = (self.corpus.total - self.plan.passages_of(done) for done in each)
        return embed, record

    def embed(self) -> Store:
        """What is not embedded yet; ``cluster`` gathers it."""
        store = self.work.embed(
            self.place, self.facts, self.corpus.settings.embedder, self.corpus.embedder, self._shown("embed")
        )
        self._lose("embed")
        return store

    def find_embeddings(self) -> Store:
        """Those of all machines, which must be there."""
        store = self.work.find_embeddings(self.place, self.facts)
        self._lose("embed")
        return store

    def cluster(self, embedded: Store) -> Candidates:
        """All clusterings that are tried, of all embeddings."""
        self.watch.show("cluster")
        self.work.gather(embedded, self.plan, self.vectors, self.corpus.embedder.dimension)
        ks, kept, seed = self.corpus.ks, self.corpus.parts.kept, self.corpus.settings.seed
        return self.work.cluster(embedded, self._cluster_facts, lambda: candidates(self.open_vectors(), kept, ks, seed))

    def open_vectors(self) -> NDArray[np.float32]:
        """The embeddings of the whole corpus (n, d), once they are gathered."""
        return open_vectors(self.vectors)

    def record(self, options: Candidates) -> Store:
        """What is not recorded yet."""
        made, facts, shown = self.corpus.settings, self._record_facts(options), self._shown("record")
        store = self.work.record(self.place, facts, options, made.model, made.dtype, self.recorder, shown)
        self._lose("record")
        return store

    def sums(self, recorded: Store, options: Candidates) -> Statistics:
        """All that was recorded, of the whole corpus."""
        found = self.work.sums(recorded, self.plan, (options.rows[-1].stop, *self.corpus.recorder.shape))
        if not found.passages.all():
            raise CoreInferError(
                f"all passages of {counted(int((found.passages == 0).sum()), 'cluster')} are in bad shards: give fewer "
                "--clusters"
            )
        return found

    def remember(self, recorded: Store, stats: Statistics, clusters: int | None = None) -> Remember:
        """What keeps measurements of all ``stats`` that were recorded, or of the clustering of so many ``clusters``."""
        facts: Facts = {
            "recorded": recorded.key, "passages": keys.array_digest(stats.passages), "clusters": clusters,
            "embeddings": key_of(self.facts), "held out": keys.array_digest(self.corpus.parts.held),
        }  # fmt: skip
        return remembering(self.corpus, self.work)(facts)

    def embedded(self, store: Store) -> int:
        """How many shards are embedded, by whomever."""
        return len(parts.embedded(store, self.plan))

    def recorded(self, store: Store) -> int:
        """How many shards are recorded, by whomever."""
        return len(self._recorded(store))

    def spoilt(self) -> dict[str, Any]:
        """What an artifact's evidence says of shards that are not in it, or have other last bits; mostly nothing."""
        files = list(self.corpus.counts.bad_files)
        lost = {stage: sorted(self.work.bad.get(stage, ())) for stage in ("embed", "record")}
        bad = {what: those for what, those in ({"files": files} | lost).items() if those}
        compiled, fewer = self.recorder.layers is not None, self.work.in_smaller_batches
        made = {"bad_shards": bad, "in_smaller_batches": fewer, "compiled_layers": compiled}
        return {what: found for what, found in made.items() if found}

    def counters(self) -> dict[str, dict[str, Any]]:
        """What each stage saw and did."""
        counts, parts = self.corpus.counts, self.corpus.parts
        out: dict[str, dict[str, Any]] = {
            "read passages": {
                "seen": counts.records, "made": counts.passages, "split": counts.split, "dropped": counts.dropped,
                "bad_files": counts.bad_files,
            },
            "hold out": {
                "seen": counts.passages, "held_out": len(parts.held), "dropped": {"duplicates": parts.duplicates},
            },
        }  # fmt: skip
        for stage, account in self.work.accounts.items():
            dropped = {"bad shard": self.plan.passages_of(account.bad)}
            out[stage] = {"seen": self.corpus.total, "dropped": dropped, **account.row()}
        self.watch.stop()
        for stage, made in self._speeds().items():
            out[stage]["speed"] = made.row()
        return out

    def _speeds(self) -> dict[str, Speed]:
        """Of the long stages that did something in this run, if that is wanted: a stage of its own."""
        did = {stage: account.passages for stage, account in self.work.accounts.items() if account.passages}
        wanted = self.work.ways.speeds
        if wanted is None:
            wanted = sum(self.watch.seconds.get(stage, 0.0) for stage in did) > WORTH
        if not (wanted and did and self.corpus.texts):
            return {}
        self.watch.show("measure the limit")
        found = {stage: self._speed(stage, passages) for stage, passages in did.items()}
        self.watch.stop()
        return {stage: made for stage, made in found.items() if made is not None}

    def _speed(self, stage: str, passages: int) -> Speed | None:
        """Of a long stage that did so many passages in this run; their tokens are counted on held-out ones."""
        seconds, some = self.watch.seconds.get(stage, 0.0), self.corpus.texts[:SAMPLE]
        if not seconds:
            return None
        if stage == "record":
            return speed(recording(self.corpus.recorder, some), passages, seconds)
        work = embedding(self.corpus.embedder, some)
        return None if work is None else speed(work, passages, seconds)

    @property
    def _cluster_facts(self) -> Facts:
        return keys.cluster_facts(self.facts, self.corpus.parts.kept, self.corpus.ks, self.corpus.settings.seed)

    def _record_facts(self, options: Candidates) -> Facts:
        made, recorder = self.corpus.settings, self.recorder
        return keys.record_facts(
            self.facts, options, self.corpus.model_identity, recorder.settings, recorder.reduced_by, made.device,
            made.seed,
        )  # fmt: skip

    def _store(self, stage: str, facts: Facts) -> Store:
        """Where a stage's parts lie, or will."""
        return Store(self.work.folder(stage, facts, self.place), key_of(facts))

    def _recorded(self, store: Store) -> set[int]:
        return parts.shards_of(parts.disjoint(store, self.plan)[0])

    def _lose(self, stage: str) -> None:
        """Go on without the passages of shards that could not be made."""
        rows = [row for shard in self.work.bad.get(stage, {}) for row in self.plan.rows(shard)]
        if rows:
            self.lost = np.union1d(self.lost, np.array(rows, np.int64))
            self.corpus = self.corpus.without(self.lost)

    def _shown(self, stage: str) -> Callable[[int], Gauge]:
        return lambda passages: self.watch.start(stage, passages)
