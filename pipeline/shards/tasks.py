"""What a worker does with a shard in each of the long stages: compute, commit. A task is plain data, so that it can be
sent to a process as JSON; the models come from whoever works on it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from pyarrow import ArrowException

from coreinfer.embedder import Embedder
from coreinfer.errors import CoreInferError, in_words
from coreinfer.hub import DEFAULT
from coreinfer.models import load_model
from coreinfer.places import absolute
from coreinfer.progress import Tick
from coreinfer.settings import StatisticSettings
from coreinfer.summing import compile_loops
from pipeline.data import Statistics
from pipeline.heap import give_back
from pipeline.passages import read_rows
from pipeline.record import Recorder, record_texts
from pipeline.shards.careful import BadShard, Careful, embedded
from pipeline.shards.keys import check_fact
from pipeline.shards.parts import read_clusters, read_embeddings, read_sums, write_embeddings, write_sums
from pipeline.shards.plan import Plan
from pipeline.shards.store import Store

Do = Callable[[int, Tick, int | None], None]  # one shard, committed when this returns; texts run together at most


class Task(Protocol):
    """A long stage of one build."""

    @property
    def place(self) -> "Place":
        """What it reads."""
        ...

    @property
    def store(self) -> Store:
        """Where it writes."""
        ...

    def on(self, device: str) -> Self:
        """The same on another device of the same kind."""
        ...

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        ...

    def load(self) -> Any:
        """The model that the stage runs."""
        ...

    def begin(self, model: Any, slot: str) -> Do:
        """Go on in a slot, where only one worker is at a time."""
        ...

    def is_done(self, shard: int, slot: str) -> bool:
        """Whether a worker of this slot, that is no more, committed the shard."""
        ...


@dataclass(frozen=True)
class Place:
    """Where the passages are, how they are cut, and what they are computed on."""

    passages: Path
    plan: Plan
    device: str

    def texts(self, shard: int) -> list[str]:
        """The passages of a shard.

        Raises:
            BadShard: they cannot be read.
        """
        try:
            return read_rows(self.passages, self.plan.rows(shard))
        except (OSError, ArrowException) as error:
            raise BadShard(f"its texts cannot be read ({in_words(error)})") from error

    def plain(self) -> list[Any]:
        """As JSON has it."""
        return [str(self.passages.absolute()), self.plan.passages, self.plan.size, self.device]

    @classmethod
    def of(cls, raw: list[Any]) -> Self:
        return cls(Path(raw[0]), Plan(raw[1], raw[2]), raw[3])


@dataclass(frozen=True)
class EmbedTask:
    """Passages -> a file of embeddings a shard."""

    place: Place
    store: Store
    embedder: str

    def on(self, device: str) -> Self:
        return replace(self, place=replace(self.place, device=device))

    def load(self) -> Embedder:
        return Embedder(self.embedder, self.place.device)

    def begin(self, model: Embedder, slot: str) -> Do:
        check_fact(self.store, "encoder", model.encoder)

        def do(shard: int, tick: Tick, together: int | None = None) -> None:
            write_embeddings(self.store, shard, embedded(self.place.texts(shard), model, together, tick))
            give_back()

        return do

    def is_done(self, shard: int, slot: str) -> bool:
        return read_embeddings(self.store, shard) is not None

    def plain(self) -> dict[str, Any]:
        return {"place": self.place.plain(), "store": self.store.plain(), "embedder": absolute(self.embedder, DEFAULT)}

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Self:
        return cls(Place.of(raw["place"]), Store.of(raw["store"]), raw["embedder"])


@dataclass(frozen=True)
class RecordTask:
    """Passages and their clusters -> running sums of each slot."""

    place: Place
    store: Store
    clusters: Path
    model: str
    dtype: str
    statistic: StatisticSettings
    most: int
    compiled: bool = False

    def on(self, device: str) -> Self:
        return replace(self, place=replace(self.place, device=device))

    def load(self) -> Recorder:
        model, tokenizer = load_model(self.model, self.dtype, self.place.device)
        recorder = Recorder(model, tokenizer, self.statistic, self.most)
        return recorder.compiled() if self.compiled else recorder

    def begin(self, model: Recorder, slot: str) -> Do:
        store = self.store
        check_fact(store, "loops", model.reduced_by)
        compile_loops(model.model.dtype)
        options = read_clusters(self.clusters, store.key)
        if options is None:
            raise CoreInferError(f"{self.clusters} is damaged: remove {store.folder} and build again")
        before = read_sums(store, slot)
        done = set(before.shards) if before else set[int]()
        out = Statistics.zeros(options.rows[-1].stop, *model.shape)
        if before:
            out = Statistics(*(np.array(each) for each in vars(before.stats).values()))

        def do(shard: int, tick: Tick, together: int | None = None) -> None:
            if shard in done:  # by whoever had the slot and was given up for dead
                return
            rows, careful = self.place.plan.rows(shard), Careful.of(model, together)
            labels = options.labels[:, rows.start : rows.stop]
            if (labels[0] >= 0).any():  # of a shard without embeddings nothing belongs anywhere
                record_texts(self.place.texts(shard), labels, careful, out, tick)
            check_fact(store, "loops", model.reduced_by)  # which a kernel that fails only now changes
            done.add(shard)
            write_sums(store, slot, done, out)
            give_back()

        return do

    def is_done(self, shard: int, slot: str) -> bool:
        found = read_sums(self.store, slot)
        return found is not None and shard in found.shards

    def plain(self) -> dict[str, Any]:
        kind = self.statistic
        return {
            "place": self.place.plain(), "store": self.store.plain(), "clusters": str(self.clusters.absolute()),
            "model": absolute(self.model, "demo"), "dtype": self.dtype, "most": self.most, "compiled": self.compiled,
            "statistic": [kind.kind, kind.token_fraction, kind.mode],
        }  # fmt: skip

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Self:
        return cls(
            Place.of(raw["place"]), Store.of(raw["store"]), Path(raw["clusters"]), raw["model"], raw["dtype"],
            StatisticSettings(*raw["statistic"]), raw["most"], raw["compiled"],
        )  # fmt: skip


KINDS: dict[str, type[EmbedTask] | type[RecordTask]] = {"EmbedTask": EmbedTask, "RecordTask": RecordTask}
