"""One machine's part of a build that several share: a pass over some of the shards, left in a folder of theirs."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coreinfer.places import writing
from coreinfer.progress import Stage, unseen
from pipeline.corpus import read_corpus, with_statistic
from pipeline.settings import BuildSettings
from pipeline.shards.ways import Ways
from pipeline.shards.work import Work
from pipeline.sources import Counts
from pipeline.speed import Speed
from pipeline.stages import Stages
from pipeline.stopwatch import Stopwatch


@dataclass(frozen=True)
class PartReport:
    """What a machine did: shards of the corpus, how many are done by all machines, what the source held, seconds,
    shards done before, and how fast the pass was.
    """

    shards: int
    done: int
    counts: Counts
    seconds: dict[str, float]
    reused: dict[str, int]
    speeds: dict[str, Speed]


def run_pass(
    settings: BuildSettings,
    ways: Ways,
    stage: Stage = unseen,
    say: Callable[[str], Any] = lambda text: None,
) -> PartReport:
    """Do the pass ``ways.only`` of ``ways.part``, of what is not done yet, into ``ways.work``.

    ``embed`` comes first, on all machines; ``record`` needs all embeddings. ``build_clusters`` with the same folder
    makes the artifact.

    Raises:
        CoreInferError: as a build; or embeddings are missing, or the folder holds parts of other settings.
    """
    assert ways.work is not None, "a pass is done in a folder"
    watch = Stopwatch(stage)
    with writing(ways.work, ways.remedy):
        ways.work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".scratch.", dir=ways.work) as scratch, Work(ways, say) as work:
            corpus = read_corpus(settings, Path(scratch) / "passages.parquet", watch)
            stages = Stages(corpus if ways.only == "embed" else with_statistic(corpus, watch.start), work, watch)
            done = _embed(stages) if ways.only == "embed" else _record(stages)
            watch.stop()
            speeds = stages.speeds()
    return PartReport(stages.plan.count, done, corpus.counts, watch.seconds, work.reused, speeds)


def _embed(stages: Stages) -> int:
    return stages.embedded(stages.embed())


def _record(stages: Stages) -> int:
    embeddings = stages.find_embeddings()
    options = stages.cluster(embeddings)
    return stages.recorded(stages.record(options))
