"""What a build would take, in time, memory and disk, from a reading of its dataset and a few of its passages. Nothing
is written.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coreinfer.capture import Reducer
from coreinfer.embedder import Embedder, unit
from coreinfer.evaluate.masked import Truth
from coreinfer.machine import cores
from coreinfer.memory.sizes import size_in_words
from coreinfer.models import find_mlps
from coreinfer.progress import Stage, unseen
from coreinfer.wording import counted, lasting
from pipeline import calibrate
from pipeline.calibration.run import MOST, TOKENS, usable
from pipeline.calibration.sample import batch_size
from pipeline.calibration.sensitivity import sensitivity
from pipeline.calibration.statistic import PROMPT, TRIED
from pipeline.corpus import load_models
from pipeline.data import Statistics
from pipeline.estimate import like_batches
from pipeline.holdout import held_out_of
from pipeline.kmeans import ROUNDS, lloyd
from pipeline.needs import HERE, Need, Rates, Sizes, needs
from pipeline.passages import BLOCK, WINDOW
from pipeline.record import Recorder
from pipeline.settings import BuildSettings
from pipeline.shards.gpus import gpus_here
from pipeline.shards.plan import Plan
from pipeline.shards.ways import Ways
from pipeline.skim import Skim
from pipeline.sources import Counts, read_passages
from pipeline.stopwatch import Stopwatch

BATCHES = 8  # that are timed
POINTS, CLUSTERS = 4096, 64  # of a k-means that is timed

Two = tuple[float, float]


@dataclass(frozen=True)
class Forecast:
    """What is needed, stage by stage, and by engine where several can do it."""

    counts: Counts
    shards: int
    clusters: list[int]
    needs: list[Need]

    def lines(self) -> list[str]:
        """For people."""
        tried = ", ".join(map(str, self.clusters))
        cut = f"{counted(self.shards, 'shard')}; clusters tried: {tried}"
        total = sum(need.seconds for need in self.needs if need.engine == HERE)
        most = max(need.memory for need in self.needs)
        return [
            self.counts.sentence(), cut, *map(_sentence, self.needs),
            f"all in {HERE}: about {lasting(total)}; {size_in_words(most)} of memory at the most",
        ]  # fmt: skip

    def row(self) -> dict[str, Any]:
        """For programs."""
        return {"shards": self.shards, "clusters": self.clusters, "needs": [asdict(need) for need in self.needs]}


def _sentence(need: Need) -> str:
    memory, disk = size_in_words(max(1, need.memory)), size_in_words(max(1, need.disk))
    return f"{need.stage}, {need.engine}: about {lasting(need.seconds)}, {memory} of memory, {disk} of disk"


def forecast(settings: BuildSettings, ways: Ways, stage: Stage = unseen) -> Forecast:
    """Read the dataset, run both models on some of its passages, and tell what all of it would need.

    Raises:
        CoreInferError: as a build, for what it finds.
    """
    watch = Stopwatch(stage)
    recorder, embedder = load_models(settings, watch, ways.bad_shards)
    counts, skim = Counts(most_bad=ways.bad_shards), Skim()
    texts = _texts(settings, recorder, counts, watch.start("read passages", settings.source.limit))
    read = _timed(partial(skim.read, texts))
    watch.show("measure")
    tokens = dict(zip(skim.telling, recorder.lengths(skim.telling), strict=True))
    held, long = held_out_of(counts.passages), [text for text in skim.some if tokens[text] >= TOKENS]
    ks = calibrate.numbers(counts.passages - held) if settings.clusters is None else [settings.clusters]
    size = Sizes(
        counts.passages, skim.bytes, held, min(round(held * len(long) / len(skim.some)), MOST), ks, *recorder.shape,
        embedder.dimension, sum(p.nbytes for p in recorder.model.parameters()), embedder.bytes,
    )  # fmt: skip
    records = recorder.for_corpus(counts.passages, settings.compiled)
    costs = _costs(skim.some, [tokens[text] for text in skim.some], records, embedder)
    _at_their_most(sorted(tokens, key=lambda text: tokens[text])[-BLOCK:], tokens, recorder, embedder)
    ids = usable(recorder.tokenizer, long[: batch_size(recorder.model, TOKENS - PROMPT)])
    held_out = _held_out(recorder, ids, settings.keep)
    multiply, score = _multiply(embedder.dimension), _score(recorder.shape, settings.keep)
    if settings.calibrate and len(ids):
        watch.show("measure gradients")
        sensitivity(recorder.model, ids)
    watch.stop()
    base = watch.peak["measure"] or size.lm + size.embedder
    rates = Rates(
        read / counts.passages, *costs.seconds, *costs.room(settings.device), multiply, *held_out, score, base,
        watch.peak.get("measure gradients") or base,
    )  # fmt: skip
    shards = Plan(counts.passages, ways.size_on(settings.device)).count
    workers = max(1, ways.processes_on(settings.device, shards))
    stages = needs(size, rates, workers, settings.statistic is None, settings.calibrate)
    return Forecast(counts, shards, ks, list(stages))


def _texts(settings: BuildSettings, recorder: Recorder, counts: Counts, tick: Callable[[int], object]) -> Iterator[str]:
    """All of the dataset's passages."""
    for passage in read_passages(settings.source, recorder.lengths, counts):
        if counts.passages % WINDOW == 0:
            tick(WINDOW)
        yield passage.text


@dataclass(frozen=True)
class _Costs:
    """Of a passage, to embed and to record it: seconds, and processor seconds of all threads."""

    seconds: Two
    processor: Two

    def room(self, device: str) -> Two:
        """How many processes that do this the machine has room for at once: those that wait for no core of others'.
        Each GPU is one's, and one that is named is all workers'.
        """
        if device != "cpu":
            gpus = float(len(gpus_here())) if device == "cuda" else 1.0
            return gpus, gpus
        embed, record = (cores() * s / max(p, s) for s, p in zip(self.seconds, self.processor, strict=True))
        return max(1.0, embed), max(1.0, record)


def _costs(some: list[str], lengths: list[int], recorder: Recorder, embedder: Embedder) -> _Costs:
    """Of one of ``some``, texts of these ``lengths``."""
    picked, times = like_batches(lengths, recorder.batch, BATCHES)
    sample, part = [some[i] for i in picked], times / len(some)
    embed, record = (_both(partial(work, sample)) for work in (embedder.embed, recorder.rehearse))
    return _Costs((part * embed[0], part * record[0]), (part * embed[1], part * record[1]))


def _both(work: Callable[[], object]) -> Two:
    """Seconds and processor seconds of some work, once it is warm."""
    work()  # on a CPU, what a matrix library compiles for a new shape takes as long as its work
    begun = time.process_time()
    seconds = _timed(work)
    return seconds, time.process_time() - begun


def _at_their_most(longest: list[str], tokens: dict[str, int], recorder: Recorder, embedder: Embedder) -> None:
    """Some of the batches of a block of the longest, and the longest: no others take as much memory. One batch would
    not do: each new length leaves some behind, until those that follow fit in.
    """
    picked, _ = like_batches([tokens[text] for text in longest], recorder.batch, BATCHES)
    some = list(dict.fromkeys([longest[i] for i in picked] + longest[-recorder.batch :]))
    embedder.embed(some)
    recorder.rehearse(some)


def _held_out(recorder: Recorder, ids: torch.Tensor, keep: float) -> tuple[float, float]:
    """Of a held-out text, run dense and watched, and under one plan of neurons; 0 where none is long enough."""
    if not len(ids):
        return 0.0, 0.0
    mlps, made = find_mlps(recorder.model), list[Truth]()
    reducers = [Reducer(mlps, tried) for tried in TRIED]
    dense = _timed(lambda: made.append(Truth(recorder.model, mlps, ids.to(recorder.model.device), PROMPT, reducers)))
    masks = np.random.default_rng(0).random((len(ids), *recorder.shape)) < keep
    return dense / len(ids), _timed(lambda: made[0].rises(masks)) / len(ids)


def _multiply(dimension: int) -> float:
    """Of one multiplication in k-means."""
    points = unit(np.random.default_rng(0).standard_normal((POINTS, dimension), np.float32))
    return _timed(lambda: lloyd(points, CLUSTERS, 0)) / (ROUNDS * POINTS * CLUSTERS * dimension)


def _score(shape: tuple[int, int], keep: float) -> float:
    """Of scoring the neurons of one text in one clustering."""
    rng, count = np.random.default_rng(0), 8
    ones = np.ones(count, np.int64)
    stats = Statistics(rng.integers(1, 1 << 30, (count, *shape)), ones, ones)
    vectors = unit(rng.standard_normal((count, count), np.float32))
    shares = [(np.arange(count), rng.random((count, *shape)))]
    return _timed(lambda: calibrate.quality([vectors], [stats], vectors, shares, keep)) / (2 * count)


def _timed(work: Callable[[], object]) -> float:
    """Seconds, less those in which this thread waited for a core that others had: as if nothing else ran."""
    begun, waited = time.perf_counter(), _waited()
    work()
    return time.perf_counter() - begun - (_waited() - waited)


def _waited() -> float:
    """Seconds that this thread could have run and did not (sched-stats of Linux); 0 where the system does not say."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text("ascii").split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0
