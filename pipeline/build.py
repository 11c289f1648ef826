"""A dataset becomes an artifact: sources, embed, cluster, record, calibrate, index, in this order, meeting on disk."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

import coreinfer
from coreinfer.embedder import DEFAULT, Embedder
from coreinfer.identity import identity
from coreinfer.manifest import Layout, Manifest
from coreinfer.match import make_index
from coreinfer.models import context_length, find_mlps, load_model
from coreinfer.settings import (
    Dtype,
    PolicySettings,
    StatisticSettings,
    at_least,
    check_device,
    check_keep,
    check_seed,
    one_of,
)
from pipeline import calibrate, index
from pipeline.cluster import Clustering, assign, check_clusters, grouped, kmeans
from pipeline.embed import embed_passages, open_vectors, read_windows, write_passages
from pipeline.estimate import in_words, seconds_needed
from pipeline.folder import appearing
from pipeline.record import Recorder, Statistics, record
from pipeline.sources import Counts, SourceSettings, read_passages
from pipeline.terms import sample_texts, top_terms

Stage = Callable[[str, int | None], Callable[[int], Any]]  # (name, total) -> tick; how a caller shows progress


@dataclass(frozen=True)
class BuildSettings:
    """Everything that decides what an artifact holds; stored in its manifest."""

    source: SourceSettings
    model: str = "demo"
    embedder: str = DEFAULT
    clusters: int | None = None  # None: auto
    statistic: StatisticSettings = field(default_factory=StatisticSettings)
    keep: float = 0.4
    examples: int = 0
    seed: int = 0
    device: str = "cpu"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        check_keep(self.keep)
        check_seed(self.seed)
        at_least("examples", self.examples, 0)
        if self.clusters is not None:
            check_clusters(self.clusters, self.clusters)
        one_of("the dtype", self.dtype, get_args(Dtype))
        check_device(self.device)


@dataclass(frozen=True)
class Report:
    """What a build did: the manifest, what the source held, and seconds by stage."""

    manifest: Manifest
    counts: Counts
    seconds: dict[str, float]
    threshold: float


class _Stopwatch:
    def __init__(self, stage: Stage) -> None:
        self.stage, self.seconds, self._last = stage, dict[str, float](), ("", 0.0)

    def start(self, name: str, total: int | None = None) -> Callable[[int], Any]:
        self.stop()
        self._last = (name, time.perf_counter())
        return self.stage(name, total)

    def stop(self) -> None:
        if self._last[0]:
            self.seconds[self._last[0]] = round(time.perf_counter() - self._last[1], 3)
        self._last = ("", 0.0)


def build_clusters(
    settings: BuildSettings,
    output: Path,
    overwrite: bool = False,
    stage: Stage = lambda name, total: lambda n: None,
    say: Callable[[str], Any] = lambda text: None,
) -> Report:
    """Build an artifact in ``output``. The folder appears whole at the end, or not at all.

    ``stage`` shows progress; ``say`` gets an estimate, measured on a few passages, before the long stages.

    Raises:
        CoreInferError: bad settings, an unusable dataset, model or embedder, or a place that cannot be written.
    """
    watch = _Stopwatch(stage)
    with appearing(output, overwrite) as (made, scratch):
        watch.start("load models")
        model, tokenizer = load_model(settings.model, settings.dtype, settings.device)
        mlps = find_mlps(model)
        longest = min(context_length(model), 512)
        recorder = Recorder(model, tokenizer, settings.statistic, longest)
        embedder = Embedder(settings.embedder, settings.device)

        tick = watch.start("read passages", settings.source.limit)
        counts, passages = Counts(), scratch / "passages.parquet"

        def lengths(texts: list[str]) -> list[int]:
            return [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]]

        total = write_passages(read_passages(settings.source, lengths, counts), passages, tick)
        held = calibrate.held_out(total, settings.seed)
        kept = np.setdiff1d(np.arange(total), held)
        fine_k = settings.clusters or calibrate.candidates(len(kept))[-1]
        check_clusters(fine_k, len(kept))
        if seconds := seconds_needed(passages, total, embedder, recorder):
            say(f"{total:,} passages: {in_words(seconds)} to embed and record them")

        vectors = scratch / "embeddings.npy"
        embed_passages(passages, total, embedder, vectors, watch.start("embed", total))
        watch.start("cluster")
        fine = assign(open_vectors(vectors), kept, kmeans(open_vectors(vectors), kept, fine_k, settings.seed))
        labels = np.full(total, -1, np.int64)
        labels[kept] = fine.labels

        tick = watch.start("record", total if settings.clusters is None else len(kept))
        stats = record(passages, labels, len(fine.centroids), recorder, tick)
        texts = _texts_of(passages, held)
        shares = _shares(texts if settings.clusters is None else [], recorder, tick)

        watch.start("calibrate")
        clustering, stats, labels, table = _final_clusters(
            settings, fine, stats, labels, kept, open_vectors(vectors), held, shares
        )
        prefixes = embedder.embed([text[: calibrate.PREFIX] for text in texts])
        best = make_index(clustering.centroids).search(prefixes, 1)[0][:, 0] if texts else np.zeros(0, np.float32)
        policy = PolicySettings(threshold=calibrate.threshold(best))

        watch.start("write")
        layout = Layout(made)
        sampled = sample_texts(passages, labels, len(clustering.centroids), settings.seed)
        examples = [group[: settings.examples] for group in sampled]
        everything, each = calibrate.priors(stats, policy.shrink)
        index.write_neurons(layout, everything, each, settings.keep)
        index.write_clusters(layout, clustering, stats.tokens, top_terms(sampled), examples)
        index.write_layers(layout, len(mlps), mlps[0].width)
        index.write_calibration(layout, policy, _evidence(len(held), table))
        index.write_index(layout, clustering.centroids)
        manifest = index.write_manifest(
            layout,
            model=identity(settings.model, model, tokenizer, longest),
            embedder=embedder.identity,
            layers=len(mlps), width=mlps[0].width, dimension=embedder.dimension,
            clusters=len(clustering.centroids), passages=int(stats.passages.sum()), tokens=int(stats.tokens.sum()),
            statistic=settings.statistic, default_keep=settings.keep, seed=settings.seed,
            config={"coreinfer": coreinfer.__version__, **asdict(settings)},
        )  # fmt: skip
        watch.stop()
    return Report(manifest, counts, watch.seconds, policy.threshold)


def _texts_of(passages: Path, rows: NDArray[np.int64]) -> list[str]:
    wanted = set(rows.tolist())
    return [text for start, window in read_windows(passages) for i, text in enumerate(window, start) if i in wanted]


def _shares(texts: list[str], recorder: Recorder, tick: Callable[[int], Any]) -> NDArray[np.float32]:
    """The texts' own statistics (n, L, F)."""
    out = np.zeros((len(texts), *_shape(recorder)), np.float32)
    for picked, shares, _ in recorder.shares(texts) if texts else ():
        out[picked] = shares
        tick(len(picked))
    return out


def _shape(recorder: Recorder) -> tuple[int, int]:
    mlps = find_mlps(recorder.model)
    return len(mlps), mlps[0].width


def _final_clusters(
    settings: BuildSettings,
    fine: Clustering,
    stats: Statistics,
    labels: NDArray[np.int64],
    kept: NDArray[np.int64],
    vectors: NDArray[np.float32],
    held: NDArray[np.int64],
    shares: NDArray[np.float32],
) -> tuple[Clustering, Statistics, NDArray[np.int64], list[dict[str, float]]]:
    """With --clusters auto, group the fine clusters as the held-out passages advise; else leave them."""
    if settings.clusters is not None or not len(held):
        return fine, stats, labels, []
    centroids, groups, table = calibrate.choose_k(fine, stats, vectors[held], shares, settings.keep, settings.seed)
    coarse = np.where(labels >= 0, groups[labels], -1)
    return grouped(fine, vectors, kept, centroids, groups), stats.grouped(groups), coarse, table


def _evidence(held: int, table: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "held_out_passages": held,
        "threshold_rule": f"quantile {calibrate.WEAKEST} of held-out similarities (first {calibrate.PREFIX} letters)",
        "clusters_rule": f"smallest K with {calibrate.ENOUGH} of the best gain in captured share over the global set",
        "clusters_tried": table,
    }
