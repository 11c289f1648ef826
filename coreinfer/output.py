"""How results look: JSON rows and rich tables for the command line, and progress on stderr."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coreinfer.errors import CoreInferError
from coreinfer.neurons import overlap

if TYPE_CHECKING:
    from coreinfer.artifact import Artifact
    from coreinfer.evaluate import Rung
    from coreinfer.policy import Prediction

SHOWN = 64  # clusters whose overlap is computed at most


def prediction_row(prompt: str, prediction: "Prediction", with_neurons: bool) -> dict[str, Any]:
    """A prediction as a JSON object."""
    neurons = prediction.neurons
    row: dict[str, Any] = {
        "prompt": prompt,
        "policy": prediction.policy,
        "source": prediction.source,
        "cluster": prediction.cluster,
        "similarity": round(prediction.similarity, 6),
        "threshold": prediction.threshold,
        "reason": prediction.reason,
        "keep": prediction.keep,
        "neurons_per_layer": neurons.per_layer if neurons else None,
    }
    if with_neurons:
        row["neurons"] = [ids.tolist() for ids in neurons.layers] if neurons else None
    return row


def in_lines(artifact: "Artifact", prompt: str, prediction: "Prediction", speed: float | None = None) -> str:
    """A prediction for people: two lines."""
    terms = ", ".join(artifact.terms[prediction.cluster][:5])
    kept = "all" if prediction.neurons is None else f"{sum(prediction.neurons.per_layer):,}"
    fast = "" if speed is None else f", {speed:.1f} tok/s"
    short = prompt if len(prompt) <= 72 else prompt[:71] + "…"
    head = f"{short}\n" if speed is None else ""
    return (
        f"{head}  {prediction.source} ({prediction.reason})\n"
        f"  cluster {prediction.cluster} [{terms}]; {kept} neurons kept (keep {prediction.keep:g}){fast}"
    )


def write_rows(rows: list[dict[str, Any]], path: Path) -> None:
    """Rows into .jsonl or .parquet, through a temporary sibling."""
    if path.suffix not in (".jsonl", ".parquet"):
        raise CoreInferError(f"--output {path} has the suffix {path.suffix!r}: give a .jsonl or .parquet file")
    part = path.with_name(f".{path.name}.part")
    try:
        if path.suffix == ".jsonl":
            part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(rows), part, compression="zstd")
        os.replace(part, path)
    except OSError as error:
        raise CoreInferError(f"cannot write {path}: {error.strerror or error}; choose another --output") from error
    finally:
        part.unlink(missing_ok=True)


def artifact_facts(artifact: "Artifact") -> dict[str, Any]:
    """What ``inspect`` says; overlap is between the core sets of the largest clusters, at the default keep."""
    manifest = artifact.manifest
    largest = np.argsort(-artifact.sizes, kind="stable")[:SHOWN]
    sets = [artifact.core_set(int(c)) for c in largest]
    pairs = [overlap(a, b) for i, a in enumerate(sets) for b in sets[i + 1 :]]
    clusters = [
        {"cluster": c, "size": int(artifact.sizes[c]), "terms": artifact.terms[c],
         "similarity_median": round(float(artifact.quantiles[c][2]), 4), "examples": artifact.examples[c]}
        for c in range(manifest.clusters)
    ]  # fmt: skip
    return {
        "artifact": str(artifact.root),
        "model": manifest.model.id,
        "embedder": manifest.embedder.id,
        "layers": manifest.layers,
        "width": manifest.width,
        "statistic": manifest.statistic.kind,
        "keep": manifest.default_keep,
        "passages": manifest.passages,
        "tokens": manifest.tokens,
        "threshold": artifact.policy.threshold,
        "overlap": {"mean": mean(pairs), "least": min(pairs, default=1.0), "most": max(pairs, default=1.0)},
        "bytes": sum(int(f["bytes"]) for f in manifest.files.values()),
        "clusters": clusters,
    }


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 1.0


def print_artifact(facts: dict[str, Any], top: int) -> None:
    """The same as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if os.isatty(1) else 110)
    lap = facts["overlap"]
    console.print(
        f"[bold]{facts['artifact']}[/]: {len(facts['clusters'])} clusters of {facts['passages']:,} passages "
        f"({facts['tokens']:,} tokens), {facts['bytes'] / 1e6:.1f} MB\n"
        f"model {facts['model']} ({facts['layers']} layers of {facts['width']} neurons), embedder {facts['embedder']}, "
        f"statistic {facts['statistic']}, threshold {facts['threshold']:.3f}\n"
        f"two clusters' core sets at keep {facts['keep']:g} share {lap['mean']:.0%} of their neurons "
        f"({lap['least']:.0%} to {lap['most']:.0%})",
        highlight=False,
    )
    rows = sorted(facts["clusters"], key=lambda row: -row["size"])
    table = Table("cluster", "passages", "similarity", "terms", box=None, header_style="dim")
    for row in rows[: top or None]:
        table.add_row(
            str(row["cluster"]), f"{row['size']:,}", f"{row['similarity_median']:.2f}", ", ".join(row["terms"])
        )
    console.print(table)
    if top and len(rows) > top:
        console.print(f"… {len(rows) - top} more: --top 0 shows all", style="dim")


def print_ladder(rungs: list["Rung"]) -> None:
    """The ladder as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    first = rungs[0]
    table = Table("policy", "keep", "NLL rise", "95% interval", "oracle's neurons found", box=None, header_style="dim")
    for r in rungs[1:]:
        table.add_row(
            r.policy, f"{r.keep:g}", f"{r.nll_rise:.4f}", f"{r.ci_low:.4f} to {r.ci_high:.4f}", f"{r.recall:.0%}"
        )
    console = Console(width=None if os.isatty(1) else 110)
    console.print(
        f"{first.texts} texts: {first.prompt_tokens} prompt tokens dense, then {first.continuation_tokens} on the kept "
        f"neurons; dense NLL {first.nll:.4f} nats per token",
        highlight=False,
    )
    console.print(table)


@contextmanager
def stages(quiet: bool) -> Iterator[Callable[[str, int | None], Callable[[int], Any]]]:
    """Progress bars on stderr, with rates and the time left: a new bar for each stage."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:15}"),
        BarColumn(30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    console = Console(stderr=True, quiet=quiet)
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:

        def begin(name: str, total: int | None) -> Callable[[int], Any]:
            for task in progress.tasks:
                progress.update(
                    task.id, total=task.total or task.completed or 1, completed=task.total or task.completed or 1
                )
            task_id = progress.add_task(name, total=total, rate="")

            def tick(n: int) -> None:
                task = progress.tasks[task_id]
                speed = (task.completed + n) / task.elapsed if task.elapsed else 0.0
                progress.update(task_id, advance=n, rate=f"{speed:,.0f}/s")

            return tick

        yield begin


def quiet_libraries() -> None:
    """Keep the talk of transformers (weight-loading bars, advice) out of ours; called by the command line alone."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
