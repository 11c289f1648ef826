"""What a build would take, in time, memory and disk, from a reading of its dataset and a few of its passages. Nothing
is written.
"""

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from coreinfer.embedder import Embedder
from coreinfer.memory.sizes import size_in_words
from coreinfer.progress import Stage, unseen
from coreinfer.wording import counted
from pipeline import calibrate
from pipeline.corpus import load_models
from pipeline.estimate import SAMPLE, about, seconds_each
from pipeline.passages import WINDOW
from pipeline.record import Recorder
from pipeline.settings import BuildSettings
from pipeline.shards.plan import Plan
from pipeline.shards.ways import Ways
from pipeline.sources import Counts, read_passages
from pipeline.stopwatch import Stopwatch


@dataclass(frozen=True)
class Need:
    """What a stage takes: seconds in one process, where they were measured; bytes of memory and of disk with all
    workers, at most.
    """

    stage: str
    seconds: float | None
    memory: int
    disk: int

    def sentence(self) -> str:
        """In words."""
        memory, disk = size_in_words(max(1, self.memory)), size_in_words(max(1, self.disk))
        time = "" if self.seconds is None else f"{about(self.seconds)} in one process, "
        return f"{self.stage}: {time}{memory} of memory, {disk} of disk"


@dataclass(frozen=True)
class Forecast:
    """What is needed, stage by stage. Choosing a statistic, K, and calibrating are not in it."""

    counts: Counts
    shards: int
    clusters: list[int]
    needs: list[Need]

    def lines(self) -> list[str]:
        """For people."""
        tried = ", ".join(map(str, self.clusters))
        cut = f"{counted(self.shards, 'shard')}; clusters tried: {tried}"
        return [
            self.counts.sentence(), cut, *(need.sentence() for need in self.needs),
            "memory is of weights and sums; choosing statistic and K, and calibrating, take minutes more",
        ]  # fmt: skip

    def row(self) -> dict[str, Any]:
        """For programs."""
        return {"shards": self.shards, "clusters": self.clusters, "needs": [asdict(need) for need in self.needs]}


def forecast(settings: BuildSettings, ways: Ways, stage: Stage = unseen) -> Forecast:
    """Read the dataset, run both models on some of its passages, and tell what all of it would need.

    Raises:
        CoreInferError: as a build, for what it finds.
    """
    watch = Stopwatch(stage)
    recorder, embedder = load_models(settings, watch)
    tick, counts, some = watch.start("read passages", settings.source.limit), Counts(), list[str]()
    for passage in read_passages(settings.source, recorder.lengths, counts):
        if len(some) < WINDOW:
            some.append(passage.text)
        if counts.passages % WINDOW == 0:
            tick(WINDOW)
    watch.show("measure")
    sample = some[:: max(1, len(some) // SAMPLE)][:SAMPLE]
    ks = calibrate.numbers(counts.passages) if settings.clusters is None else [settings.clusters]
    stages = (embedder.embed, lambda texts: deque(recorder.shares(texts), maxlen=0))
    seconds = [seconds_each(sample, work) for work in stages]
    text = sum(len(text.encode()) for text in some) * counts.passages // len(some)
    needs = _needs(
        Sizes(counts.passages, text, ks, *recorder.shape, embedder.dimension), recorder, embedder, ways, seconds
    )
    watch.stop()
    return Forecast(counts, Plan(counts.passages, ways.size_on(settings.device)).count, ks, needs)


@dataclass(frozen=True)
class Sizes:
    """Of a corpus, passages and bytes of text; numbers of clusters to try; L, F and d."""

    passages: int
    text: int
    ks: list[int]
    layers: int
    width: int
    dimension: int


def _needs(size: Sizes, recorder: Recorder, embedder: Embedder, ways: Ways, seconds: list[float]) -> list[Need]:
    """``seconds`` of a passage in each long stage -> what each stage takes."""
    lm = sum(parameter.nbytes for parameter in recorder.model.parameters())
    both, more = lm + embedder.bytes, ways.workers * (ways.workers > 1)  # processes beside this one
    sums, vectors = 8 * sum(size.ks) * size.layers * size.width, 4 * size.passages * size.dimension
    kept = size.text + 2 * vectors  # of embeddings, one copy lies in the cache
    written = 4 * (size.ks[-1] + 1) * size.layers * size.width
    embed, record = (each * size.passages for each in seconds)
    return [
        Need("embed", embed, both + more * embedder.bytes, kept),
        Need("record", record, both + sums + more * (lm + sums), kept + 2 * ways.workers * sums),
        Need("write", None, both + sums, kept + ways.workers * sums + written),
    ]
