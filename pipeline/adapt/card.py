"""The README.md of a trained model: what it is, what it was made from, what it loses."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.adapt.settings import AdaptSettings

CARD = """---
library_name: transformers
pipeline_tag: text-generation
tags: [coreinfer]
---
# {name}

This is {origin} core-mask-aware by coreinfer: what followed a prompt ran on the MLP neurons that the prompt's meaning
and activations pick, so the model loses little when coreinfer decodes on those alone. It is a usual Hugging Face model
otherwise.

**Data.** `{data}`: {seen:.1f}M tokens seen in {steps:,} steps. The licences of the data and of the base model apply.

**Held-out loss**, nats per token; on core neurons after prompts of {prompt} tokens.

{table}

**Settings.**

{settings}
"""


def short(name: str) -> str:
    """A Hub name as it is; of a path, which may name people and places, the last part."""
    path = Path(name)
    return path.name if path.exists() or path.is_absolute() else name


def card(name: str, base: str | None, settings: AdaptSettings, reports: list[dict[str, Any]]) -> str:
    """The card of the model called ``name``; ``base`` is None for one that was trained from scratch."""
    train = settings.train
    return CARD.format(
        name=name,
        origin=f"`{short(base)}`, adapted" if base else "a new model, trained",
        data=short(settings.source.dataset),
        seen=train.steps * train.batch * settings.context / 1e6,
        steps=train.steps,
        prompt=reports[-1]["prompt"],
        table="\n".join(_table(reports)),
        settings="\n".join(f"- {key}: {value}" for key, value in _settings(settings)),
    )


def _table(reports: list[dict[str, Any]]) -> list[str]:
    """The first report and the last, in Markdown."""
    ends = reports if len(reports) == 1 else [reports[0], reports[-1]]
    rows = [("dense", [r["dense"] for r in ends]), ("dense, after the prompt", [r["continued"] for r in ends])]
    for policy in ("similarity", "stability"):
        keeps = ends[-1][policy] or ()
        rows += [(f"{policy}, keep {keep}", [(r[policy] or {}).get(keep) for r in ends]) for keep in keeps]
    head = " | ".join(f"step {r['step']:,}" for r in ends)
    cells = ((label, " | ".join("" if x is None else f"{x:.4f}" for x in values)) for label, values in rows)
    return [f"| | {head} |", "|---|" + "---|" * len(ends), *(f"| {label} | {row} |" for label, row in cells)]


def _settings(settings: AdaptSettings) -> list[tuple[str, Any]]:
    """Those of training, masks and priors that are set."""
    groups = {"train": asdict(settings.train), "masks": asdict(settings.masks), "priors": asdict(settings.priors)}
    groups["train"]["rate"] = settings.train.full_rate
    return [(f"{g} {name}", x) for g, record in groups.items() for name, x in record.items() if x is not None]
