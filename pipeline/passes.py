"""One machine's part of a build that several share: a pass over some of the shards, left in a folder of theirs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coreinfer.places import writing
from coreinfer.progress import Stage, unseen
from pipeline.corpus import read_corpus
from pipeline.recorded import record_settings
from pipeline.settings import BuildSettings
from pipeline.shards.ways import Ways
from pipeline.shards.work import Work
from pipeline.sources import Counts
from pipeline.stages import Stages, with_chosen_statistic
from pipeline.stopwatch import Stopwatch


@dataclass(frozen=True)
class PartReport:
    """What a machine did: shards of the corpus, how many are done by all machines, what the source held, seconds, and
    what each stage saw and did.
    """

    shards: int
    done: int
    counts: Counts
    seconds: dict[str, float]
    reused: dict[str, int]
    stages: dict[str, dict[str, Any]]


def run_pass(
    settings: BuildSettings,
    ways: Ways,
    stage: Stage = unseen,
    say: Callable[[str], Any] = lambda text: None,
) -> PartReport:
    """Do the pass ``ways.only`` of ``ways.part``, of what is not done yet, into ``ways.work``.

    ``embed`` comes first, on all machines; ``record`` needs all embeddings; ``merge`` makes the artifact.

    Raises:
        CoreInferError: as a build; or embeddings are missing, or the folder holds parts of other settings.
    """
    assert ways.work is not None, "a pass is done in a folder"
    watch = Stopwatch(stage)
    with writing(ways.work, ways.remedy):
        record_settings(settings, ways)
        with Work(ways, say) as work, work.scratch() as scratch:
            corpus = read_corpus(settings, scratch / "passages.parquet", watch, ways.bad_shards)
            chosen = corpus if ways.only == "embed" else with_chosen_statistic(corpus, work, watch)
            stages = Stages(chosen, work, watch)
            done = _embed(stages) if ways.only == "embed" else _record(stages)
            counters = stages.counters()
    return PartReport(stages.plan.count, done, corpus.counts, watch.seconds, work.reused, counters)


def _embed(stages: Stages) -> int:
    return stages.embedded(stages.embed())


def _record(stages: Stages) -> int:
    embeddings = stages.find_embeddings()
    options = stages.cluster(embeddings)
    return stages.recorded(stages.record(options))
