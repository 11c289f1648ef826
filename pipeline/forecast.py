"""What a build would take, in time, memory and disk, from a reading of its dataset and a few of its passages. Nothing
is written.
"""

import time
from collections import deque
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
from coreinfer.memory.sizes import size_in_words
from coreinfer.models import find_mlps
from coreinfer.progress import Stage, unseen
from coreinfer.threads import running_on
from coreinfer.wording import counted, lasting
from pipeline import calibrate
from pipeline.calibration.run import MOST, TOKENS, usable
from pipeline.calibration.sample import batch_size
from pipeline.calibration.sensitivity import sensitivity
from pipeline.calibration.statistic import PROMPT, TRIED
from pipeline.corpus import load_models
from pipeline.data import Statistics
from pipeline.holdout import held_out_of
from pipeline.kmeans import ROUNDS, lloyd
from pipeline.needs import HERE, Need, Rates, Sizes, needs
from pipeline.passages import WINDOW, spread
from pipeline.record import BATCH, Recorder
from pipeline.settings import BuildSettings
from pipeline.shards.plan import Plan
from pipeline.shards.ways import Ways
from pipeline.skim import Skim
from pipeline.sources import Counts, read_passages
from pipeline.stopwatch import Stopwatch

SAMPLE = 128  # passages timed: of fewer, lengths in a batch differ more than in a build, and more of it is padding
POINTS, CLUSTERS = 4096, 64  # of a k-means that is timed

Four = tuple[float, float, float, float]


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
    counts, workers, skim = Counts(most_bad=ways.bad_shards), max(1, ways.processes_on(settings.device)), Skim()
    texts = _texts(settings, recorder, counts, watch.start("read passages", settings.source.limit))
    read = _timed(partial(skim.read, texts))
    watch.show("measure")
    held, long = held_out_of(counts.passages), usable(recorder.tokenizer, skim.some)
    ks = calibrate.numbers(counts.passages - held) if settings.clusters is None else [settings.clusters]
    size = Sizes(
        counts.passages, skim.bytes, held, _usable_of(held, skim.some, recorder), ks, *recorder.shape,
        embedder.dimension, sum(p.nbytes for p in recorder.model.parameters()), embedder.bytes,
    )  # fmt: skip
    by_length = sorted(skim.some, key=len)
    seconds = _seconds([by_length[i] for i in spread(len(by_length), SAMPLE)], recorder, embedder, workers)
    _at_their_most(skim.telling, recorder, embedder)
    long = long[: batch_size(recorder.model, long.shape[1] - PROMPT)]
    held_out = _held_out(recorder, long, settings.keep)
    multiply, score = _multiply(embedder.dimension), _score(recorder.shape, settings.keep)
    if settings.calibrate and len(long):
        watch.show("measure gradients")
        sensitivity(recorder.model, long)
    watch.stop()
    base = watch.peak["measure"] or size.lm + size.embedder
    rates = Rates(
        read / counts.passages, *seconds, multiply, *held_out, score, base, watch.peak.get("measure gradients") or base
    )
    stages = needs(size, rates, workers, settings.statistic is None, settings.calibrate)
    return Forecast(counts, Plan(counts.passages, ways.size_on(settings.device)).count, ks, list(stages))


def _texts(settings: BuildSettings, recorder: Recorder, counts: Counts, tick: Callable[[int], object]) -> Iterator[str]:
    """All of the dataset's passages."""
    for passage in read_passages(settings.source, recorder.lengths, counts):
        if counts.passages % WINDOW == 0:
            tick(WINDOW)
        yield passage.text


def _usable_of(held: int, some: list[str], recorder: Recorder) -> int:
    """How many of so many held-out texts calibration runs, if as many are long enough as of ``some``."""
    share = np.mean([length >= TOKENS for length in recorder.lengths(some)])
    return min(round(held * float(share)), MOST)


def _seconds(sample: list[str], recorder: Recorder, embedder: Embedder, workers: int) -> Four:
    """Of a passage, to embed and to record it: with all threads, then with those that one of ``workers`` has."""
    work = (embedder.embed, lambda texts: deque(recorder.shares(texts), maxlen=0))
    for each in work:
        each(sample)  # to warm up: on a CPU, what a matrix library compiles for a new shape takes as long as its work
    embed, record = (_timed(partial(each, sample)) / len(sample) for each in work)
    if workers == 1:
        return embed, record, embed, record
    with running_on(max(1, torch.get_num_threads() // workers)):  # each has all, and its part of the cores
        shared = [_timed(partial(each, sample)) / len(sample) for each in work]
    return embed, record, shared[0], shared[1]


def _at_their_most(texts: list[str], recorder: Recorder, embedder: Embedder) -> None:
    """The longest of ``texts`` together, as the last batch of a block has them: no other takes as much memory."""
    longest = [texts[i] for i in np.argsort(recorder.lengths(texts), kind="stable")[-BATCH:]]
    embedder.embed(longest)
    deque(recorder.shares(longest), maxlen=0)


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
