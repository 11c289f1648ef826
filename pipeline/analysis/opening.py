"""What an analysis runs on, opened: language model, embedder and texts; and the facts that its numbers depend on."""

from dataclasses import asdict
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from coreinfer.embedder import Embedder
from coreinfer.generation import check_room
from coreinfer.hub import DEFAULT
from coreinfer.machine import machine, versions
from coreinfer.models import find_mlps, fingerprint, load_model
from coreinfer.progress import Tick
from coreinfer.quantised.linear import named_dtype
from pipeline.analysis.observe import most_tokens
from pipeline.analysis.plan import Plan
from pipeline.analysis.texts import read_texts
from pipeline.sources import SourceSettings
from pipeline.texts import Found

Opened = tuple[PreTrainedModel, PreTrainedTokenizerBase, Embedder, Found]


def opened(
    source: SourceSettings, plan: Plan, model: str, embedder: str | None, limit: int, device: str, dtype: str,
    tick: Tick = lambda n: None,
) -> Opened:  # fmt: skip
    """
    Raises:
        CoreInferError: a model or embedder that cannot be used, no room for the plan's texts, or too few of them.
    """
    lm, tokenizer = load_model(model, dtype, device)
    find_mlps(lm)
    check_room(lm, plan.length)
    found = read_texts(source, plan, tokenizer, most_tokens(lm, plan), limit, tick)
    return lm, tokenizer, Embedder(embedder or DEFAULT, device), found


def facts_of(
    dataset: str, name: str, model: PreTrainedModel, embedder: Embedder, plan: Plan, found: Found
) -> dict[str, Any]:
    """Names, sizes and settings, and on what machine the numbers were made."""
    mlps = find_mlps(model)
    return {
        "dataset": dataset, "texts": len(found.texts), "seen": found.seen, "short": found.short, "model": name,
        "weights": fingerprint(model),
        "layers": len(mlps), "width": mlps[0].width, "embedder": embedder.name,
        "dtype": named_dtype(model), "device": str(model.device), **asdict(plan),
        "length": plan.length, "machine": machine(),
        "versions": versions(),
    }  # fmt: skip
