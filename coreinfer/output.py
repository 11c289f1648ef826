"""How results look: JSON rows and rich tables for the command line."""

import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coreinfer.neurons import overlap
from coreinfer.prompts import words_of
from coreinfer.settings import BY_CLUSTER
from coreinfer.wording import counted, shortened

if TYPE_CHECKING:
    from coreinfer.artifact import Artifact
    from coreinfer.decode.lossless import Drafts
    from coreinfer.generation import Generation
    from coreinfer.manifest import Manifest
    from coreinfer.policy import Prediction
    from coreinfer.prompts import Prompt

SHOWN = 64  # clusters whose overlap is computed at most


def prediction_row(prompt: "Prompt", prediction: "Prediction", with_neurons: bool) -> dict[str, Any]:
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
        "worth": _finite(prediction.worth),
        "keep": prediction.keep,
        "neurons_per_layer": neurons.per_layer if neurons else None,
    }
    if with_neurons:
        row["neurons"] = [ids.tolist() for ids in neurons.layers] if neurons else None
    return row


def _finite(worth: float | None) -> float | None:
    """What JSON can hold of what a match is worth; ``similarity`` says itself that it is worth everything."""
    return None if worth is None or math.isinf(worth) else round(worth, 2)


def generation_row(prompt: "Prompt", made: "Generation") -> dict[str, Any]:
    """A continuation as a JSON object."""
    return prediction_row(prompt, made.prediction, False) | {
        "text": made.text,
        "prompt_tokens": made.prompt_tokens,
        "new_tokens": made.new_tokens,
        "stopped": made.stopped,
        "refreshes": made.refreshes,
        "first_token_s": round(made.first_token_s, 4),
        "tokens_per_second": round(made.tokens_per_second, 2),
        "runtime": made.runtime,
        "drafts": None if made.drafts is None else asdict(made.drafts),
    }


def in_lines(artifact: "Artifact", prompt: "Prompt", prediction: "Prediction", speed: float | None = None) -> str:
    """A prediction for people: two lines."""
    terms = ", ".join(artifact.terms[prediction.cluster][:5])
    kept = "all" if prediction.neurons is None else f"{sum(prediction.neurons.per_layer):,}"
    fast = "" if speed is None else f", {speed:.1f} tok/s"
    head = f"{beginning(prompt)}\n" if speed is None else ""
    worth = f", worth {prediction.worth:.0f} prompt tokens" if prediction.source == "hybrid" else ""
    near = "cluster" if prediction.source in BY_CLUSTER else "not used: nearest cluster"
    keep, found = f"keep {prediction.keep:g}", prediction.neurons.keep if prediction.neurons else 0.0
    if found > 1.01 * prediction.keep + 0.001:  # more than rounding does
        keep += f", {found:.2f} with those of its batch"
    return (
        f"{head}  {prediction.source} ({prediction.reason})\n"
        f"  {near} {prediction.cluster} [{terms}]{worth}; {kept} neurons kept ({keep}){fast}"
    )


def together_in_words(texts: int, tokens: int, seconds: float) -> str:
    """What a batch came to, prefills and all."""
    rate = f"{tokens / seconds:.1f} tok/s together"
    return f"  {counted(texts, 'text')}, {counted(tokens, 'token')} in {seconds:.1f} s: {rate}"


def drafted(made: "Drafts") -> str:
    """What came of a lossless generation's drafts."""
    share = f"{made.accepted / made.drafted:.0%} of " if made.drafted else ""
    speed = f"{made.gain:.2f} times as fast as the dense model alone"
    return f"  lossless: {share}{counted(made.drafted, 'drafted token')} accepted; {speed}"


def beyond_the_curve(curve: list[dict[str, float]], max_loss: float, keep: float) -> str:
    """What to say of the ``keep`` that a curve gave for ``max_loss`` where it has an end there; "" in between."""
    least, most = curve[0]["keep"], max(0.0, *(row["rise"] for row in curve))
    if keep >= 1:
        return f"--max-loss {max_loss:g}: keep 1, all neurons, since no lower keep was measured to cost so little"
    if max_loss > most:
        return (
            f"--max-loss {max_loss:g}: keep {least:g}, the lowest that was measured, for an expected rise of "
            f"{most:.3g}; give --keep for less"
        )
    return ""


def beginning(prompt: "Prompt") -> str:
    """A prompt's first words, in one line."""
    return shortened(words_of(prompt), 72)


def full_context(made: "Generation", asked: int) -> str:
    """That a continuation ended for want of room."""
    total = made.prompt_tokens + made.new_tokens
    return (
        f"  stopped after {made.new_tokens} of {asked} tokens: prompt and text fill the model's context of {total}; "
        "give a shorter prompt for more"
    )


def built_in_lines(made: "Manifest", place: Path) -> str:
    """What a build made, and what it kept apart."""
    from coreinfer.artifact import Artifact

    evidence = Artifact.load(place).calibration
    held, twice = (int(evidence.get(name, 0)) for name in ("held_out_passages", "duplicates_left_out"))
    measured = str(evidence.get("threshold_rule")).startswith("quantile")  # else it is a guess, of the corpus alone
    why = " and ".join(["K"] * (not made.config.get("clusters")) + ["the threshold"] * measured)
    apart = [f"{held:,} held out" + f" to choose {why}" * bool(why)] * bool(held)
    apart += [f"{twice:,} duplicates left out"] * bool(twice)
    what = f"{counted(made.clusters, 'cluster')} of {counted(made.passages, 'passage')} ({made.tokens:,} tokens)"
    return "; ".join([what, *apart]) + f"; in {place}"


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
    from rich.markup import escape
    from rich.table import Table

    lap = facts["overlap"]
    head = (
        f"[bold]{escape(facts['artifact'])}[/]: {counted(len(facts['clusters']), 'cluster')} of "
        f"{counted(facts['passages'], 'passage')} "
        f"({facts['tokens']:,} tokens), {facts['bytes'] / 1e6:.1f} MB\n"
        f"model {escape(facts['model'])} ({facts['layers']} layers of {facts['width']} neurons), "
        f"embedder {escape(facts['embedder'])}, "
        f"statistic {facts['statistic']}, threshold {facts['threshold']:.3f}\n"
        f"two clusters' core sets at keep {facts['keep']:g} share {lap['mean']:.0%} of their neurons "
        f"({lap['least']:.0%} to {lap['most']:.0%})"
    )
    rows = sorted(facts["clusters"], key=lambda row: -row["size"])
    table = Table("cluster", "passages", "similarity", "terms", box=None, header_style="dim")
    for row in rows[: top or None]:
        table.add_row(
            str(row["cluster"]), f"{row['size']:,}", f"{row['similarity_median']:.2f}", ", ".join(row["terms"])
        )
    show(head, table, *([f"[dim]… {len(rows) - top} more: --top 0 shows all[/]"] if top and len(rows) > top else []))


def show(*parts: Any) -> None:
    """Rich parts on stdout, by ``print``: Rich would end the program itself where a reader closed the pipe."""
    from rich.console import Console

    console = Console(width=None if os.isatty(1) else 110)
    with console.capture() as drawn:
        for part in parts:
            console.print(part, highlight=False)
    print(drawn.get(), end="", flush=True)


def hear(quiet: bool) -> None:
    """Let what the library logs be talk on stderr; called by the command line alone."""
    import logging

    from coreinfer.cli_options import say

    class Talk(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage(), quiet)

    ours = logging.getLogger("coreinfer")
    ours.handlers = [Talk()]
    ours.setLevel(logging.INFO)


def print_calibration(policy: dict[str, Any], found: dict[str, Any]) -> None:
    """What a calibration chose, and its curve as a table, on stdout."""
    from rich.table import Table

    chosen = ", ".join(f"{name} {value}" for name, value in policy.items())
    table = Table("keep", "NLL rise", "at most (95%)", box=None, header_style="dim")
    for row in found["curve"]:
        table.add_row(f"{row['keep']:g}", f"{row['rise']:.4f}", f"{row['rise_high']:.4f}")
    measured = found["measured"]
    show(f"{measured['texts']} texts; {measured['layers']['chosen']} layer budgets; {chosen}", table)
