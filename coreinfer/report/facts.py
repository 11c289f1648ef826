"""What a report says of an artifact in words: how it was calibrated, and what it was made from."""

from typing import Any

from coreinfer.artifact import Artifact
from coreinfer.wording import counted, flat

LOSS = "nats per token"


def calibration_facts(artifact: Artifact) -> dict[str, str]:
    """By name: how prompts are judged, and on what that was measured."""
    policy, found = artifact.policy, artifact.calibration
    doubt = f"less where its doubt is above {policy.doubt:g} (of 64 tokens)" if policy.doubt < 1 else ""
    worth = f"n0 {policy.n0:g}: a topic counts for so many prompt tokens" + f"; {doubt}" * bool(doubt)
    lines = {
        "policy": f"{policy.auto} where the match reaches the threshold, else stability",
        "threshold": f"{policy.threshold:.4f}" + (
            f"; full worth from {policy.strong:.4f} on" if policy.strong > policy.threshold else ""
        ),
        "threshold rule": str(found.get("threshold_rule", "")),
        "worth of a topic": worth,
        "mixture": f"{counted(policy.mixture, 'nearest cluster')}, sharpness {policy.sharpness:g}",
        "small clusters": f"drawn to the whole corpus as if it were {policy.shrink:g} passages more",
        **_measured(found),
    }  # fmt: skip
    return {name: words for name, words in lines.items() if words}


def _measured(found: dict[str, Any]) -> dict[str, str]:
    """On what a calibration was measured; {} where none was."""
    measured = found.get("measured")
    held = int(found.get("held_out_passages", 0))
    twice = int(found.get("duplicates_left_out", 0))
    apart = {"held out": counted(held, "passage") if held else "", "duplicates left out": f"{twice:,}" if twice else ""}
    if not isinstance(measured, dict):
        return apart
    prompts = measured.get("prompt_tokens")
    listed = " and ".join(map(str, prompts)) if isinstance(prompts, list) else str(prompts)
    layers = measured.get("layers")
    chosen = str(layers.get("chosen", "")) if isinstance(layers, dict) else ""
    return apart | {
        "measured on": f"{measured.get('texts')} held-out texts: {listed} prompt tokens, then "
        f"{measured.get('continuation_tokens')} tokens of the true continuation, at keep {measured.get('keep')}",
        "layer budgets": chosen,
    }


def manifest_facts(artifact: Artifact) -> dict[str, str]:
    """By name: model, embedder, corpus, statistic, settings, files."""
    made = artifact.manifest
    total = sum(int(file["bytes"]) for file in made.files.values())
    settings = flat({name: value for name, value in made.config.items() if value is not None})
    shown = ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
    return {
        "model": f"{made.model.id}: {made.layers} layers of {made.width:,} neurons, {made.model.dtype}, inputs up to "
        f"{made.model.max_tokens:,} tokens",
        "model weights": made.model.weights,
        "embedder": f"{made.embedder.id}: {made.dimension} dimensions, {made.embedder.dtype}, windows of "
        f"{made.embedder.max_tokens} tokens",
        "embedder weights": made.embedder.weights,
        "corpus": f"{counted(made.passages, 'passage')} of {made.tokens:,} tokens in all",
        "statistic": _statistic(artifact),
        "default keep": f"{made.default_keep:g}",
        "seed": str(made.seed),
        "settings": shown,
        "size": f"{total / 1e6:.1f} MB in {counted(len(made.files), 'file')}",
    }  # fmt: skip


def _statistic(artifact: Artifact) -> str:
    kind = artifact.manifest.statistic
    return f"{kind.kind}, token fraction {kind.token_fraction:g}, {kind.mode}" if kind.kind == "count" else kind.kind
