"""A whole run: measure, with resuming where there is a folder, and leave rows, texts and a report in it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from coreinfer.engine import Engine
from coreinfer.evaluate.facts import deciding, paths, seen_by_build
from coreinfer.evaluate.partial import Partial, key_of
from coreinfer.evaluate.plan import RENEWED, Plan, Text
from coreinfer.evaluate.policies import Rungs
from coreinfer.evaluate.rows import Row, rows_of
from coreinfer.evaluate.saving import save
from coreinfer.evaluate.scoring import batch_size, measure
from coreinfer.machine import machine


def run(
    engine: Engine,
    texts: list[Text],
    plan: Plan,
    dataset: str,
    compare: Sequence[tuple[str, Engine]] = (),
    folder: Path | None = None,
    tick: Callable[[int], Any] = lambda n: None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Returns the rows; ``dataset`` names the texts in warnings and in the report."""
    rungs = Rungs(engine, plan.policies, compare, plan.seed, plan.refresh is not None)
    _warn(engine, rungs, dataset, say)
    partial, facts = None, dict[str, Any]()
    if folder is not None:
        facts = deciding(engine, compare, plan, texts)
        partial = Partial(folder, key_of(facts))
        _say_resumed(partial, engine, plan, len(texts), say)
    results = measure(engine, texts, plan, rungs, [other for _, other in compare], partial, tick)
    rows = rows_of(results, rungs)
    if folder is not None and partial is not None:
        from coreinfer.evaluate.forest import ladder
        from coreinfer.evaluate.report import report

        facts = {"dataset": dataset, **facts, "paths": paths(engine, compare), "machine": machine()}
        save(folder, rows, results, facts, report(rows, results, facts), ladder(rows, results))
        partial.forget()
        say(f"rows, texts, the ladder (ladder.md, ladder.svg) and report.html in {folder}")
    return rows


def ticks(plan: Plan, texts: int, compare: int) -> int:
    """How often a run ticks, about: a text under a policy at a keep after a prompt length."""
    again = sum(policy in RENEWED for policy in plan.policies) if plan.refresh else 0
    return texts * len(plan.prompt_tokens) * len(plan.keeps) * (len(plan.policies) + again + 2 * compare)


def _warn(engine: Engine, rungs: Rungs, dataset: str, say: Callable[[str], None]) -> None:
    if seen_by_build(engine, dataset):
        say(
            f"warning: the artifact was built from {dataset} itself, so all but the passages it held out are no test: "
            "evaluate on texts that it never saw"
        )
    if rungs.left_out:
        made = engine.artifact
        say(
            f"without {', '.join(rungs.left_out)}: all {made.manifest.clusters} clusters are in the mixture of "
            f"{made.policy.mixture}"
        )


def _say_resumed(partial: Partial, engine: Engine, plan: Plan, texts: int, say: Callable[[str], None]) -> None:
    if partial.done:
        size = batch_size(plan.continuation_tokens, engine.model.config.get_text_config().vocab_size)
        say(f"resumed: {len(partial.done)} of {-(-texts // size)} batches were finished before ({partial.path})")
