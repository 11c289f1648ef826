"""What a build, a merge or a pass tells when it is done: lines for people, a row for programs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coreinfer.cli_options import say

if TYPE_CHECKING:
    from coreinfer.progress import Stage
    from pipeline.build import Report
    from pipeline.shards.ways import Ways
    from pipeline.sources import Counts


def tell(row: dict[str, Any], place: Path | None, stats: Path | None, as_json: bool, quiet: bool) -> None:
    """What was done, for programs; what comes next, for people, where an artifact is in its ``place``."""
    if stats is not None:
        _write(stats, row)
    if as_json:
        print(json.dumps(row))
    elif place is not None:
        say(f"next: coreinfer predict --artifact {place} 'your prompt'", quiet)


def built(
    build: Callable[..., "Report"], ways: "Ways", place: Path, overwrite: bool, stage: "Stage", quiet: bool
) -> dict[str, Any]:
    """Build, say what was built; for programs, the same as a row."""
    from coreinfer.output import built_in_lines

    report = build(place, overwrite, stage, saying(ways, quiet), ways)
    made = report.manifest
    say_counts(report.counts, report.seconds, report.stages, quiet)
    say(built_in_lines(made, place), quiet)
    facts = {"clusters": made.clusters, "passages": made.passages, "tokens": made.tokens}
    done = {"threshold": report.threshold, "shards": report.shards, "reused": report.reused}
    stages = timed(report.stages, report.seconds)
    stages.setdefault("record", {})["tokens"] = made.tokens
    took = {"seconds": report.seconds, "usage": report.usage}
    done |= {"stages": stages, "source": counted(report.counts)}
    return {"output": str(place), **facts, **took, **done}


def saying(ways: "Ways", quiet: bool) -> Callable[[str], Any]:
    """Talk that is logged too."""

    def both(text: str) -> None:
        ways.log.put("said", text=text)
        say(text, quiet)

    return both


def timed(stages: dict[str, dict[str, Any]], seconds: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Counters and seconds of each stage, in the order in which they ran."""
    return {name: {"seconds": taken, **stages.get(name, {})} for name, taken in seconds.items()}


def say_counts(counts: "Counts", seconds: dict[str, float], stages: dict[str, dict[str, Any]], quiet: bool) -> None:
    """What was read, what each stage took, and how fast the long ones were."""
    from pipeline.speed import sentence

    say(counts.sentence(), quiet)
    say("  ".join(f"{name} {taken:.1f} s" for name, taken in seconds.items()), quiet)
    for name, row in stages.items():
        if "speed" in row:
            say(f"{name}: {sentence(row['speed'])}", quiet)


def counted(counts: "Counts") -> dict[str, Any]:
    """What the source held, as JSON."""
    found = {name: {"records": many, "first": first} for name, (many, first) in counts.undecodable.items()}
    return {
        "records": counts.records, "passages": counts.passages, "split": counts.split, "dropped": counts.dropped,
        "undecodable": found, "guessed_columns": counts.guessed,
    }  # fmt: skip


def _write(path: Path, row: dict[str, Any]) -> None:
    from coreinfer.places import moved_in, writing

    with writing(path, "choose another --stats"), moved_in(path) as part:
        part.write_text(json.dumps(row, indent=1) + "\n", "utf-8")
