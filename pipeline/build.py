"""A dataset becomes an artifact: sources, holdout, embed, cluster, record, calibrate, index, in this order."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

import coreinfer
from coreinfer.embedder import Embedder
from coreinfer.errors import CoreInferError
from coreinfer.identity import identity
from coreinfer.layout import Layout
from coreinfer.manifest import Manifest
from coreinfer.models import load_model
from coreinfer.neurons import top, uniform_budgets
from coreinfer.progress import Stage, unseen
from coreinfer.settings import PolicySettings, StatisticSettings
from pipeline import calibrate, index
from pipeline.calibration.run import LEAST, usable
from pipeline.calibration.statistic import choose_statistic
from pipeline.cluster import assign, candidates, check_clusters
from pipeline.data import Clustering, Statistics
from pipeline.embed import embed_passages, open_vectors
from pipeline.estimate import about, seconds_needed
from pipeline.folder import appearing
from pipeline.holdout import ENOUGH, Split, hold_out
from pipeline.passages import texts_at, write_passages
from pipeline.recalibrate import calibrate_new, too_few
from pipeline.record import Recorder, longest_passage, record
from pipeline.settings import BuildSettings
from pipeline.sources import Counts, SourceSettings, read_passages
from pipeline.stopwatch import Stopwatch
from pipeline.terms import sample_texts, top_terms
from pipeline.threshold import first_threshold


@dataclass(frozen=True)
class Report:
    """What a build did: the manifest, what the source held, and seconds by stage."""

    manifest: Manifest
    counts: Counts
    seconds: dict[str, float]
    threshold: float


def build_clusters(
    settings: BuildSettings,
    output: Path,
    overwrite: bool = False,
    stage: Stage = unseen,
    say: Callable[[str], Any] = lambda text: None,
) -> Report:
    """Build an artifact in ``output``. The folder appears whole at the end, or not at all.

    Two builds of one corpus with one seed are the same bytes: on one machine with the same versions of packages, in
    whatever processes and on however many threads.

    Beside the two models, memory holds the sums of all candidates, 8 * L * F bytes a cluster (--clusters auto tries up
    to 508 together: 1.9 GB for an 8B model with L 32 and F 14,336), and up to 40 bytes a passage. Texts, embeddings,
    shares and priors pass through.

    ``stage`` shows progress; ``say`` gets an estimate, measured on a few passages, before the long stages.

    Raises:
        CoreInferError: bad settings, an unusable dataset, model or embedder, or a place that cannot be written.
    """
    watch = Stopwatch(stage)
    with appearing(output, overwrite) as (made, scratch):
        passages, vectors = scratch / "passages.parquet", scratch / "embeddings.npy"
        _look_at(settings.source)
        watch.show("load models")
        recorder, embedder = _recorder(settings), Embedder(settings.embedder, settings.device)

        tick = watch.start("read passages", settings.source.limit)
        counts = Counts()
        total = write_passages(read_passages(settings.source, recorder.lengths, counts), passages, tick)
        watch.show("hold out")
        parts = hold_out(passages, settings.seed)
        ks = _numbers(settings.clusters, parts)
        texts = texts_at(passages, parts.held)
        ids = usable(recorder.tokenizer, texts)
        recorder, statistics = _with_statistic(settings, recorder, ids, watch)
        for line in _forecast(passages, total, parts, embedder, recorder):
            say(line)
        if settings.calibrate and len(ids) < LEAST:
            say(too_few(len(ids), len(texts), settings.source.max_tokens, output))

        embed_passages(passages, total, embedder, vectors, watch.start("embed", total))
        watch.show("cluster")
        options = candidates(open_vectors(vectors), parts.kept, ks, settings.seed)
        stats = record(
            passages, options.labels, options.rows[-1].stop, recorder, watch.start("record", len(parts.kept))
        )

        tick = watch.start("choose K", len(parts.held))
        best, tried = 0, list[dict[str, float]]()
        if len(options.centroids) > 1:
            shares = _ticking(recorder, texts, tick)
            best, tried = calibrate.choose_k(options, stats, open_vectors(vectors)[parts.held], shares, settings.keep)
        clustering = assign(open_vectors(vectors), parts.kept, options.centroids[best])
        weakest, rule = first_threshold(embedder, texts, clustering, passages, vectors, parts.kept)
        policy = PolicySettings(threshold=weakest, strong=weakest)

        watch.show("write")
        sampled = sample_texts(passages, options.labels_of(best), len(clustering.centroids), settings.seed)
        evidence = _evidence(parts, tried, statistics) | {"threshold_rule": rule}
        learned = _Learned(clustering, stats.part(options.rows[best]), policy, sampled, evidence)
        manifest = _write(Layout(made), settings, recorder, embedder, learned)
        if settings.calibrate:
            watch.time("calibrate")
            manifest, policy = calibrate_new(made, recorder.model, recorder.tokenizer, embedder, texts, stage)
        watch.stop()
    return Report(manifest, counts, watch.seconds, policy.threshold)


@dataclass(frozen=True)
class _Learned:
    """What the corpus taught: clusters, their statistics, the policies' numbers, some texts of each, the evidence."""

    clustering: Clustering
    stats: Statistics
    policy: PolicySettings
    texts: list[list[str]]
    evidence: dict[str, Any]


def _look_at(source: SourceSettings) -> None:
    """Find a dataset that is missing or has no text before minutes go into loading models."""
    next(read_passages(replace(source, limit=1), lambda texts: [1] * len(texts), Counts()))


def _recorder(settings: BuildSettings) -> Recorder:
    """The language model, if it can record passages of the wanted length whole: else their ends would be lost."""
    model, tokenizer = load_model(settings.model, settings.dtype, settings.device)
    if (wanted := settings.source.max_tokens) > (most := longest_passage(model)):
        raise CoreInferError(
            f"--passage-tokens is {wanted}, but {most} tokens are the most that {settings.model!r} can record of a "
            f"passage: give at most {most}"
        )
    return Recorder(model, tokenizer, settings.statistic or StatisticSettings(), most)


def _with_statistic(
    settings: BuildSettings, recorder: Recorder, ids: Tensor, watch: Stopwatch
) -> tuple[Recorder, list[dict[str, Any]]]:
    """The recorder with the statistic to record, and what it was chosen from; one that was asked for stays."""
    if settings.statistic is not None or not settings.calibrate:
        return recorder, []
    tick = watch.start("choose statistic")
    found, tried = choose_statistic(recorder.model, ids, settings.keep, tick)
    return replace(recorder, settings=found), tried


def _numbers(asked: int | None, parts: Split) -> list[int]:
    """The numbers of clusters to try, rising. Without held-out passages nothing can choose: the finest alone."""
    tried = calibrate.numbers(len(parts.kept))
    ks = [asked] if asked is not None else tried if len(parts.held) else tried[-1:]
    check_clusters(ks[-1], len(parts.kept))
    return ks


def _forecast(passages: Path, total: int, parts: Split, embedder: Embedder, recorder: Recorder) -> Iterator[str]:
    """What is worth knowing before the long stages begin."""

    def work(texts: list[str]) -> None:
        embedder.embed(texts)
        deque(recorder.shares(texts), maxlen=0)

    if not len(parts.held) and total >= ENOUGH:
        yield "no record can be spared, so nothing is held out: the number of clusters is not measured"
    if (held := len(parts.held)) < calibrate.FEW:
        yield f"the threshold is set low and not calibrated: that needs {calibrate.FEW} held-out texts, here are {held}"
    if seconds := seconds_needed(passages, total, work):
        yield f"{total:,} passages: {about(seconds)} to embed and record them"


def _ticking(recorder: Recorder, texts: list[str], tick: Callable[[int], Any]) -> calibrate.Shares:
    for picked, shares, _ in recorder.shares(texts):
        yield picked, shares
        tick(len(picked))


def _evidence(parts: Split, tried: list[dict[str, float]], statistics: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "statistics_tried": statistics,
        "held_out_passages": len(parts.held),
        "duplicates_left_out": parts.duplicates,
        "clusters_rule": f"smallest K with {calibrate.ENOUGH} of the best gain in captured share over the global set",
        "clusters_tried": tried,
    }


def _write(
    layout: Layout, settings: BuildSettings, recorder: Recorder, embedder: Embedder, learned: _Learned
) -> Manifest:
    """All files, the manifest last."""
    clustering, stats, model, (layers, width) = learned.clustering, learned.stats, recorder.model, recorder.shape
    budgets = uniform_budgets(settings.keep, layers, width)
    index.write_neurons(
        layout.neurons, calibrate.priors(stats, learned.policy.shrink), lambda p: top(p, budgets), width
    )
    examples = [group[: settings.examples] for group in learned.texts]
    index.write_clusters(layout, clustering, stats.tokens, top_terms(learned.texts), examples)
    index.write_layers(layout, index.uniform_table(layers, width))
    index.write_sensitivity(layout, np.ones((layers, width)))
    index.write_calibration(layout, learned.policy, learned.evidence)
    index.write_index(layout, clustering.centroids)
    return index.write_manifest(
        layout,
        model=identity(settings.model, model, recorder.tokenizer, recorder.max_tokens),
        embedder=embedder.identity,
        layers=layers, width=width, dimension=embedder.dimension,
        clusters=len(clustering.centroids), passages=int(stats.passages.sum()), tokens=int(stats.tokens.sum()),
        statistic=recorder.settings, default_keep=settings.keep, seed=settings.seed,
        config={"coreinfer": coreinfer.__version__, **asdict(settings)},
    )  # fmt: skip
