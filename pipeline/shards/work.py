"""The long stages of a build over shards: what is there is used, what is missing is made, and nothing is done twice.

In the user's cache each stage has a folder of its own name and key, that one build at a time works in, but for
measurements: each is a file of its own. In a folder that machines share each stage has one, and whoever comes with
other settings is refused.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.caching import cache_folder
from coreinfer.claims import claimed, used
from coreinfer.embedder import Embedder
from coreinfer.errors import CoreInferError
from coreinfer.places import writing
from coreinfer.progress import Gauge
from pipeline.data import Candidates, Statistics
from pipeline.embed import write_vectors
from pipeline.record import Recorder
from pipeline.shards import marks, parts
from pipeline.shards.account import Account
from pipeline.shards.actors import Actors, Cluster
from pipeline.shards.cache import tidy
from pipeline.shards.complete import WHAT, bad_ones, check_few, refuse
from pipeline.shards.crew import Crew, Here, Slots
from pipeline.shards.gpus import left_free
from pipeline.shards.measured import Measured
from pipeline.shards.plan import Plan
from pipeline.shards.processes import Processes
from pipeline.shards.scratch import scratch
from pipeline.shards.store import Facts, Store, key_of, open_store
from pipeline.shards.tasks import EmbedTask, Place, RecordTask, Task
from pipeline.shards.ways import Ways


@dataclass
class Work:
    """The long stages of one build; a context manager, inside which their folders are this build's.

    Attributes:
        reused: shards that were done before, by what they hold, and steps of measurements.
        accounts: what became of the others, by stage.
        bad: shards that could not be made, by anybody, by stage.
    """

    ways: Ways
    say: Callable[[str], Any] = lambda text: None
    reused: dict[str, int] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    bad: dict[str, dict[int, str]] = field(default_factory=dict)
    _held: ExitStack = field(default_factory=ExitStack)
    _using: ExitStack = field(default_factory=ExitStack)
    _cluster: Cluster | None = None
    _stores: dict[str, Store] = field(default_factory=dict)
    _measured: Measured | None = None
    _unsaid: list[str] = field(default_factory=list)

    def __enter__(self) -> "Work":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()
        self._using.close()
        if self._cluster is not None:
            self._cluster.close()
        if self.ways.work is None and self.ways.cache:
            tidy(cache_folder("builds"), mine=[store.folder for store in self._stores.values()])

    def plan(self, passages: int, device: str) -> Plan:
        """How a corpus is cut."""
        return Plan(passages, self.ways.size_on(device))

    def embed(self, place: Place, facts: Facts, name: str, model: Embedder, start: Callable[[int], Gauge]) -> Store:
        """Embed what is not embedded yet. ``start``, of a number of passages, shows it."""
        store, plan = self._open("embed", facts, place), place.plan
        with self._writing(store):
            done = parts.embedded(store, plan)
        task = EmbedTask(place, store, name)
        if self.ways.complete:
            self._check_complete("embed", store, plan, done)
            return store
        mine = [shard for shard in range(plan.count) if shard not in done and self.ways.part.holds(shard)]
        self._say_reused("embeddings", len(done), plan.count, at_once=bool(mine))
        self._do("embed", task, model, mine, set(), start(plan.passages_of(mine)))
        return store

    def find_embeddings(self, place: Place, facts: Facts) -> Store:
        """The embeddings of all machines; refuse to go on where some are missing."""
        store = self._open("embed", facts, place)
        self._check_complete("embed", store, place.plan, parts.embedded(store, place.plan))
        return store

    def gather(self, store: Store, plan: Plan, out: Path, dimension: int) -> None:
        """All embeddings into one .npy file, each shard's checksum verified; of a bad shard zeros, for nobody's use."""

        def pieces() -> Iterator[NDArray[np.float32]]:
            for shard in range(plan.count):
                if shard in self.bad.get("embed", {}):
                    yield np.zeros((len(plan.rows(shard)), dimension), "<f4")
                elif (vectors := parts.read_embeddings(store, shard)) is None:
                    raise CoreInferError(f"{store.folder} lost the embeddings of shard {shard}: run it again")
                else:
                    yield vectors

        write_vectors(out, plan.passages, dimension, pieces())

    def cluster(self, store: Store, facts: Facts, make: Callable[[], Candidates]) -> Candidates:
        """The clusterings of these facts, from the store of the embeddings, or made and put there. In a folder that
        machines share one of them makes them, and the others wait and use those.

        Raises:
            CoreInferError: two that could not wait for each other found different ones.
        """
        key = key_of(facts)
        path = parts.clusters_at(store, key)
        busy = partial(self.say, "another machine is finding the clusters: waiting for them")
        with self._writing(store), claimed(path, busy) if self.ways.work is not None else nullcontext():
            if (found := parts.read_clusters(path, key)) is not None:
                self._unsaid += ["clusters"] if self._unsaid else []
                return found
            return parts.begin_clusters(path, key, make())

    def record(
        self, place: Place, facts: Facts, options: Candidates, name: str, dtype: str, model: Recorder,
        start: Callable[[int], Gauge],
    ) -> Store:  # fmt: skip
        """Record what is not recorded yet."""
        self._held.close()  # the embeddings are gathered: whoever waits for them may have them
        store = self._open("record", facts, place)
        plan, clusters = place.plan, store.at("clusters")
        with self._writing(store):
            if parts.read_clusters(clusters, store.key) is None:
                parts.write_clusters(clusters, store.key, options)
            counted, left_out = parts.disjoint(store, plan)
        done = parts.shards_of(counted)
        if self.ways.complete:
            self._check_complete("record", store, plan, done)
            return store
        mine = [shard for shard in range(plan.count) if shard not in done and self.ways.part.holds(shard)]
        self._say_reused("recorded sums", len(done), plan.count, at_once=True)
        tick = start(sum(int((options.labels[0][list(plan.rows(shard))] >= 0).sum()) for shard in mine))
        task = RecordTask(place, store, clusters, name, dtype, model.settings, model.max_tokens, bool(model.layers))
        self._do("record", task, model, mine, left_out, tick)
        return store

    def sums(self, store: Store, plan: Plan, shape: tuple[int, int, int]) -> Statistics:
        """All sums, (K, L, F): each shard exactly once, but for bad ones."""
        counted = parts.disjoint(store, plan)[0]
        if missing := set(range(plan.count)) - parts.shards_of(counted) - set(self.bad.get("record", {})):
            refuse("record", missing, plan, store)
        return parts.added(counted, shape)

    def measured(self, facts: Facts, place: Place) -> Measured:
        """Where measurements on a corpus's held-out texts are kept, by these ``facts``, the same at each call."""
        if self._measured is None:
            store = self._open("measure", facts, place, alone=False)
            self._measured = Measured(store, lambda: self._writing(store), self._measured_before)
        assert self._measured.store.key == key_of(facts), "one corpus is measured on in a build"
        return self._measured

    def _measured_before(self) -> None:
        self.reused["measurements"] = self.reused.get("measurements", 0) + 1

    def scratch(self, beside: Path | None = None) -> AbstractContextManager[Path]:
        """A folder for the corpus while it is worked on: with the parts, where machines share them, else ``beside``."""
        if self.ways.work is not None:
            return scratch(self.ways.work)
        assert beside is not None, "only a folder that machines share can stand in for it"
        return nullcontext(beside)

    def folder(self, stage: str, facts: Facts, place: Place) -> Path:
        """Where a stage's parts lie: with others', in the cache, or beside the passages, with which they go."""
        if self.ways.work is not None:
            return self.ways.work / stage
        if self.ways.cache:
            return cache_folder("builds") / f"{stage}-{key_of(facts)[:32]}"
        return place.passages.parent / stage

    def _open(self, stage: str, facts: Facts, place: Place, alone: bool = True) -> Store:
        """``alone``: what lies there is written over, so one build at a time may be there."""
        folder, shared = self.folder(stage, facts, place), self.ways.work is not None
        busy = partial(self.say, f"another build is at the same work ({stage}): waiting for it to end or get on")
        with writing(folder, self.ways.remedy) if self._kept else nullcontext():
            folder.parent.mkdir(parents=True, exist_ok=True)
            if alone and (not shared or self.ways.only is None):  # in a pass, others are at the same stage
                self._held.enter_context(claimed(folder, busy))
            elif alone:
                folder.mkdir(exist_ok=True)
                self._held.enter_context(claimed(folder / self.ways.slot, busy))
            store = self._stores[stage] = open_store(folder, facts, self.say, shared, alone and not shared)
            if self.ways.cache and not shared:
                self._using.enter_context(used(folder))
        return store

    def _do(self, stage: str, task: Task, model: Any, shards: list[int], taken: set[str], gauge: Gauge) -> None:
        before = sum(map(len, self.bad.values()))
        allowed = None if self.ways.bad_shards is None else self.ways.bad_shards - before
        account = Account(task.place.plan, task.store, len(shards), allowed, gauge, self.ways.log, before)
        self.accounts[stage], self.bad[stage] = account, account.bad
        if shards:
            with self._writing(task.store):
                crew = self._crew(task.place.device, model, len(shards))
                with nullcontext() if isinstance(crew, Here) else left_free(model.model):
                    crew.work(task, shards, Slots(self.ways.slot, taken), gauge, account.hear)
        for shard, why in account.bad.items():
            self.say(f"{stage}: shard {shard} is left out: {why}")

    def _crew(self, device: str, model: Any, shards: int) -> Crew:
        if self.ways.engine == "ray":
            if self._cluster is None:
                self.say(f"connecting to Ray at {self.ways.address}" if self.ways.address else "starting Ray")
                self._cluster = Cluster(self.ways.address, self.ways.workers, device.startswith("cuda"))
            return Actors(self._cluster)
        count = self.ways.processes_on(device, shards)
        return Processes(count) if count else Here(model)

    def _writing(self, store: Store) -> AbstractContextManager[None]:
        return writing(store.folder, self.ways.remedy) if self._kept else nullcontext()

    @property
    def in_smaller_batches(self) -> dict[str, list[int]]:
        """Shards that were, by anybody, by stage; mostly nothing."""
        return {stage: some for stage, at in self._stores.items() if (some := sorted(marks.read(at, marks.FEWER)))}

    @property
    def _kept(self) -> bool:
        """Whether parts outlive the build; else they lie beside its output, whose faults others word."""
        return self.ways.cache or self.ways.work is not None

    def _check_complete(self, stage: str, store: Store, plan: Plan, done: Collection[int]) -> None:
        """That every shard is done, or was found to be bad, and not too many were."""
        self.reused[WHAT[stage]] = len(done)
        self.bad[stage] = bad_ones(stage, store, plan, done)
        check_few(self.bad, stage, self.ways.bad_shards or 0)

    def _say_reused(self, what: str, done: int, count: int, at_once: bool) -> None:
        """One line about both stages, where the first had nothing left to do."""
        self.reused[what] = done
        if done:
            self._unsaid.append(f"{what} of {done} of {count} shards")
        if self._unsaid and at_once:
            self.say(f"reusing {', '.join(self._unsaid)}")
            self._unsaid.clear()
