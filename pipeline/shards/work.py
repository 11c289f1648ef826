"""The long stages of a build over shards: what is there is used, what is missing is made, and nothing is done twice.

In the user's cache each stage has a folder of its own name and key, that one build at a time works in. In a folder
that machines share each stage has one, and whoever comes with other settings is refused.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.caching import cache_folder
from coreinfer.claims import claimed
from coreinfer.embedder import Embedder
from coreinfer.errors import CoreInferError
from coreinfer.places import writing
from coreinfer.progress import Tick
from pipeline.data import Candidates, Statistics
from pipeline.embed import write_vectors
from pipeline.record import Recorder
from pipeline.shards import parts
from pipeline.shards.cache import tidy
from pipeline.shards.crew import Crew, Here, Slots
from pipeline.shards.measured import Measured
from pipeline.shards.plan import Plan, listed
from pipeline.shards.processes import Processes
from pipeline.shards.store import Facts, Store, key_of, open_store
from pipeline.shards.tasks import EmbedTask, Place, RecordTask, Task
from pipeline.shards.ways import Ways


@dataclass
class Work:
    """The long stages of one build; a context manager, inside which their folders are this build's.

    Attributes:
        reused: shards that were done before, by stage.
        measurements: the steps of measurements that were there before.
    """

    ways: Ways
    say: Callable[[str], Any] = lambda text: None
    reused: dict[str, int] = field(default_factory=dict)
    measurements: list[str] = field(default_factory=list)
    _held: ExitStack = field(default_factory=ExitStack)
    _measured: Measured | None = None
    _unsaid: list[str] = field(default_factory=list)

    def __enter__(self) -> "Work":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()
        if self.ways.work is None and self.ways.cache:
            tidy(cache_folder("builds"))

    def plan(self, passages: int, device: str) -> Plan:
        """How a corpus is cut."""
        return Plan(passages, self.ways.size_on(device))

    def embed(self, place: Place, facts: Facts, name: str, model: Embedder, start: Callable[[int], Tick]) -> Store:
        """Embed what is not embedded yet. ``start``, of a number of passages, shows it."""
        store, plan = self._open("embed", facts, place), place.plan
        with self._writing(store):
            done = parts.embedded(store, plan)
        mine = [shard for shard in range(plan.count) if shard not in done and self.ways.part.holds(shard)]
        self._say_reused("embeddings", len(done), plan.count, at_once=bool(mine))
        if self._merging and mine:
            self._refuse("embeddings", mine, plan, store)
        tick = start(plan.passages_of(mine))
        self._do(EmbedTask(place, store, name), model, mine, set(), tick)
        return store

    def find_embeddings(self, place: Place, facts: Facts) -> Store:
        """The embeddings of all machines; refuse to go on where some are missing."""
        store = self._open("embed", facts, place)
        if missing := set(range(place.plan.count)) - parts.embedded(store, place.plan):
            self._refuse("embeddings", missing, place.plan, store)
        return store

    def gather(self, store: Store, plan: Plan, out: Path, dimension: int) -> None:
        """All embeddings into one .npy file, each shard's checksum verified."""

        def pieces() -> Iterator[NDArray[np.float32]]:
            for shard in range(plan.count):
                if (vectors := parts.read_embeddings(store, shard)) is None:
                    raise CoreInferError(f"{store.folder} lost the embeddings of shard {shard}: run it again")
                yield vectors

        write_vectors(out, plan.passages, dimension, pieces())

    def cluster(self, store: Store, facts: Facts, make: Callable[[], Candidates]) -> Candidates:
        """The clusterings of these facts, from the store of the embeddings, or made and put there."""
        key = key_of(facts)
        path = store.at(f"clusters-{key[:32]}")
        with self._writing(store):
            if (found := parts.read_clusters(path, key)) is not None:
                self._unsaid += ["clusters"] if self._unsaid else []
                return found
            options = make()
            parts.write_clusters(path, key, options)
        return options

    def record(
        self, place: Place, facts: Facts, options: Candidates, name: str, dtype: str, model: Recorder,
        start: Callable[[int], Tick],
    ) -> Store:  # fmt: skip
        """Record what is not recorded yet."""
        self._held.close()  # the embeddings are gathered: whoever waits for them may have them
        self._measured = None
        store = self._open("record", facts, place)
        plan, clusters = place.plan, store.at("clusters")
        with self._writing(store):
            if parts.read_clusters(clusters, store.key) is None:
                parts.write_clusters(clusters, store.key, options)
            counted, left_out = parts.disjoint(store)
        done = {shard for running in counted for shard in running.shards}
        mine = [shard for shard in range(plan.count) if shard not in done and self.ways.part.holds(shard)]
        self._say_reused("recorded sums", len(done), plan.count, at_once=True)
        if self._merging and mine:
            self._refuse("recorded sums", mine, plan, store)
        tick = start(sum(int((options.labels[0][list(plan.rows(shard))] >= 0).sum()) for shard in mine))
        task = RecordTask(place, store, clusters, name, dtype, model.settings, model.max_tokens)
        self._do(task, model, mine, left_out, tick)
        return store

    def sums(self, store: Store, plan: Plan, shape: tuple[int, int, int]) -> Statistics:
        """All sums, (K, L, F): each shard exactly once."""
        counted = parts.disjoint(store)[0]
        shards = sorted(shard for running in counted for shard in running.shards)
        if shards != list(range(plan.count)):
            self._refuse("recorded sums", set(range(plan.count)) - set(shards), plan, store)
        return parts.added(counted, shape)

    def measured(self, facts: Facts, place: Place) -> Measured:
        """Where measurements on a corpus's held-out texts are kept, by the ``facts`` of the first call."""
        if self._measured is None:
            store = self._open("measure", facts, place)
            self._measured = Measured(store, lambda: self._writing(store), self.measurements)
        return self._measured

    @property
    def _merging(self) -> bool:
        """Whether all parts must have been made elsewhere."""
        return self.ways.work is not None and self.ways.only is None

    def folder(self, stage: str, facts: Facts, place: Place) -> Path:
        """Where a stage's parts lie: with others', in the cache, or beside the passages, with which they go."""
        if self.ways.work is not None:
            return self.ways.work / stage
        if self.ways.cache:
            return cache_folder("builds") / f"{stage}-{key_of(facts)[:32]}"
        return place.passages.parent / stage

    def _open(self, stage: str, facts: Facts, place: Place) -> Store:
        folder, shared = self.folder(stage, facts, place), self.ways.work is not None
        busy = partial(self.say, f"another build is at the same work ({stage}): waiting for it to end or get on")
        with writing(folder, self.ways.remedy) if self._kept else nullcontext():
            folder.parent.mkdir(parents=True, exist_ok=True)
            if not shared:
                self._held.enter_context(claimed(folder, busy))
            return open_store(folder, facts, self.say, shared)

    def _do(self, task: Task, model: Any, shards: list[int], taken: set[str], tick: Tick) -> None:
        crew: Crew = Processes(self.ways.workers) if min(self.ways.workers, len(shards)) > 1 else Here(model)
        with self._writing(task.store):
            crew.work(task, shards, Slots(self.ways.slot, taken), tick)

    def _writing(self, store: Store) -> AbstractContextManager[None]:
        return writing(store.folder, self.ways.remedy) if self._kept else nullcontext()

    @property
    def _kept(self) -> bool:
        """Whether parts outlive the build; else they lie beside its output, whose faults others word."""
        return self.ways.cache or self.ways.work is not None

    def _say_reused(self, what: str, done: int, count: int, at_once: bool) -> None:
        """One line about both stages, where the first had nothing left to do."""
        self.reused[what] = done
        if done and not self._merging:
            self._unsaid.append(f"{what} of {done} of {count} shards")
        if self._unsaid and at_once:
            self.say(f"reusing {', '.join(self._unsaid)}")
            self._unsaid.clear()

    def _refuse(self, what: str, missing: Any, plan: Plan, store: Store) -> None:
        stage = "embed" if what == "embeddings" else "record"
        raise CoreInferError(
            f"{what} of {len(missing)} of {plan.count} shards are missing in {store.folder} ({listed(missing)}): run "
            f"the same command with --pass {stage} --shard i/n on the machines that have not, or with --pass {stage} "
            "alone for all that are missing"
        )
