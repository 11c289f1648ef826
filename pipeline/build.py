"""A dataset becomes an artifact: sources, holdout, embed, cluster, record, calibrate, index, in this order."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import coreinfer
from coreinfer.calibrated import FEW
from coreinfer.layout import Layout
from coreinfer.manifest import Manifest
from coreinfer.neurons import top, uniform_budgets
from coreinfer.places import writing
from coreinfer.progress import Stage, unseen
from coreinfer.settings import PolicySettings
from coreinfer.wording import lasting
from pipeline import calibrate, index
from pipeline.calibration.run import LEAST
from pipeline.cluster import how, placed
from pipeline.corpus import Corpus, read_corpus
from pipeline.data import Clustering, Remember, Statistics
from pipeline.estimate import WORTH, seconds_needed
from pipeline.folder import appearing
from pipeline.holdout import Split
from pipeline.recalibrate import calibrate_new, too_few
from pipeline.record import Recorder
from pipeline.recorded import record_settings
from pipeline.settings import BuildSettings
from pipeline.shards.ways import Ways
from pipeline.shards.work import Work
from pipeline.sources import Counts
from pipeline.stages import Stages, with_chosen_statistic
from pipeline.stopwatch import Stopwatch, Usage
from pipeline.terms import sample_texts, top_terms
from pipeline.threshold import first_threshold


@dataclass(frozen=True)
class Report:
    """What a build did: the manifest, what the source held, what each stage took (``Stopwatch.usage``), shards, those
    done before, and what each stage saw and did (``stages``).
    """

    manifest: Manifest
    counts: Counts
    seconds: dict[str, float]
    usage: dict[str, Usage]
    threshold: float
    shards: int
    reused: dict[str, int]
    stages: dict[str, dict[str, Any]]


def build_clusters(
    settings: BuildSettings,
    output: Path,
    overwrite: bool = False,
    stage: Stage = unseen,
    say: Callable[[str], Any] = lambda text: None,
    ways: Ways | None = None,
) -> Report:
    """Build an artifact in ``output``. The folder appears whole at the end, or not at all.

    Two builds of one corpus with one seed are the same bytes: on one machine with the same versions of packages and
    number of torch's threads, in whatever processes, in one go or after any number of interruptions. What is embedded
    and recorded, and what is measured on held-out texts, is kept in the user's cache as it is made (``ways``), and the
    same call goes on from there.

    Beside the two models, memory holds the sums of all candidates, 8 * L * F bytes a cluster and worker (--clusters
    auto tries up to 508 together: 1.9 GB for an 8B model with L 32 and F 14,336), up to 0.5 GB of embeddings while
    k-means trains, and up to 40 bytes a passage. Texts, other embeddings, shares and priors pass through.

    ``stage`` shows progress; ``say`` gets an estimate, measured on a few passages, before the long stages.

    Raises:
        CoreInferError: bad settings, an unusable dataset, model or embedder, or a place that cannot be written.
    """
    watch = Stopwatch(stage)
    ways = ways or Ways()
    if ways.work is not None and not ways.complete:
        with writing(ways.work, ways.remedy):
            record_settings(settings, ways)
    with (
        Work(ways, say) as work, appearing(output, overwrite) as (made, beside), work.scratch(beside) as scratch,
    ):  # fmt: skip
        corpus = read_corpus(settings, scratch / "passages.parquet", watch, ways.bad_shards)
        corpus = with_chosen_statistic(corpus, work, watch)
        stages = Stages(corpus, work, watch)
        for line in _worth_knowing(stages, output):
            say(line)
        learned = _learned(corpus, stages)
        manifest = _write(Layout(made), corpus, learned)
        policy = learned.policy
        if settings.calibrate:
            watch.time("calibrate")
            recorder, texts = corpus.recorder, stages.corpus.texts
            manifest, policy = calibrate_new(
                made, recorder.model, recorder.tokenizer, corpus.embedder, texts, stage, learned.remember
            )
        counters = stages.counters()
    return Report(
        manifest, corpus.counts, watch.seconds, watch.usage, policy.threshold, stages.plan.count, work.reused,
        counters,
    )  # fmt: skip


def _learned(corpus: Corpus, stages: Stages) -> "_Learned":
    """The long stages, then what is chosen and computed from them."""
    options = stages.cluster(stages.embed())
    clustered = len(stages.corpus.parts.kept)
    recorded = stages.record(options)
    stats = stages.sums(recorded, options)
    corpus, options = stages.corpus, options.without(stages.lost)
    watch, held, settings = stages.watch, corpus.parts.held, corpus.settings
    tick = watch.start("choose K", len(held))
    best, tried = 0, list[dict[str, float]]()
    if len(options.centroids) > 1:
        shares = _ticking(corpus.recorder, corpus.texts, tick)
        best, tried = calibrate.choose_k(
            options, stats, stages.open_vectors()[held], shares, settings.keep, stages.remember(recorded, stats)
        )
    kept = corpus.parts.kept
    vectors, labels = stages.open_vectors(), options.labels_of(best)
    clustering = placed(vectors, kept, options.centroids[best], labels[kept])
    weakest, rule = first_threshold(corpus.embedder, corpus.texts, clustering, corpus.passages, stages.vectors, kept)
    policy = PolicySettings(threshold=weakest, strong=weakest)
    watch.show("write")
    sampled = sample_texts(corpus.passages, labels, len(clustering.centroids), settings.seed)
    evidence = _evidence(corpus.parts, tried, corpus.tried) | {"threshold_rule": rule} | stages.spoilt()
    evidence |= {"k_means": how(vectors, kept, clustered, corpus.ks, clustering)}
    remember = stages.remember(recorded, stats, len(clustering.centroids))
    return _Learned(clustering, stats.part(options.rows[best]), policy, sampled, evidence, remember)


@dataclass(frozen=True)
class _Learned:
    """What the corpus taught: clusters, their statistics, the policies' numbers, some texts of each, the evidence, and
    what keeps measurements of it.
    """

    clustering: Clustering
    stats: Statistics
    policy: PolicySettings
    texts: list[list[str]]
    evidence: dict[str, Any]
    remember: Remember


def _worth_knowing(stages: Stages, output: Path) -> Iterator[str]:
    """What is worth knowing before the long stages begin."""
    corpus = stages.corpus
    if corpus.none_spared:
        yield "no record can be spared, so nothing is held out: the number of clusters is not measured"
    if (held := len(corpus.parts.held)) < FEW:
        yield (
            f"the threshold is set by these texts alone, not calibrated: that needs {FEW} held-out texts, here are "
            f"{held}"
        )
    if stages.work.ways.work is None:
        yield from _estimate(stages)
    if corpus.settings.calibrate and len(corpus.ids) < LEAST:
        yield too_few(len(corpus.ids), len(corpus.texts), corpus.settings.source.max_tokens, output)


def _estimate(stages: Stages) -> Iterator[str]:
    """How long the long stages take for what is left of them; what is done already is not timed either."""
    corpus, (embed, record), seconds = stages.corpus, stages.left(), 0.0
    if corpus.total >= WORTH and embed + record:
        stages.watch.show("estimate")
    works = corpus.embedder.embed, corpus.recorder.rehearse
    for left, work in zip((embed, record), works, strict=True):
        if left:
            whole = seconds_needed(corpus.passages, corpus.total, work, corpus.recorder) or 0.0
            seconds += whole * left / corpus.total
    if seconds:
        alone = " in one process" * (stages.work.ways.processes_on(corpus.settings.device, stages.plan.count) > 0)
        yield f"{corpus.total:,} passages: about {lasting(seconds)} to {_rest(embed, record, corpus.total)}{alone}"


def _rest(embed: int, record: int, total: int) -> str:
    """What is to be done with so many of all passages."""

    def some(left: int) -> str:
        return "them" if left == total else f"{left:,} of them"

    if embed == record:
        return f"embed and record {some(embed)}"
    return " and ".join(f"{what} {some(left)}" for what, left in (("embed", embed), ("record", record)) if left)


def _ticking(recorder: Recorder, texts: list[str], tick: Callable[[int], Any]) -> calibrate.Shares:
    for picked, shares, _ in recorder.shares(texts):
        yield picked, np.nan_to_num(shares)  # what is no number tells no clusterings apart
        tick(len(picked))


def _evidence(parts: Split, tried: list[dict[str, float]], statistics: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "statistics_tried": statistics,
        "held_out_passages": len(parts.held),
        "duplicates_left_out": parts.duplicates,
        "clusters_rule": f"smallest K with {calibrate.ENOUGH} of the best gain in captured share over the global set",
        "clusters_tried": tried,
    }


def _write(layout: Layout, corpus: Corpus, learned: _Learned) -> Manifest:
    """All files, the manifest last."""
    clustering, stats, settings, recorder = learned.clustering, learned.stats, corpus.settings, corpus.recorder
    layers, width = recorder.shape
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
        model=corpus.model_identity,
        embedder=corpus.embedder_identity,
        layers=layers, width=width, dimension=corpus.embedder.dimension,
        clusters=len(clustering.centroids), passages=int(stats.passages.sum()), tokens=int(stats.tokens.sum()),
        statistic=recorder.settings, default_keep=settings.keep, seed=settings.seed,
        config={"coreinfer": coreinfer.__version__, **asdict(settings)},
    )  # fmt: skip
