"""What a run's numbers depend on."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coreinfer.engine import Engine
from coreinfer.evaluate.plan import Plan, Text
from coreinfer.evaluate.scoring import LARGEST, ROOM, WINDOW
from coreinfer.machine import versions
from coreinfer.quantised.linear import named_dtype


def deciding(engine: Engine, compare: Sequence[tuple[str, Engine]], plan: Plan, texts: list[Text]) -> dict[str, Any]:
    """All that decides the numbers; equal facts, equal numbers."""
    content = hashlib.sha256()
    for text in texts:
        content.update(f"{text.name}\0{text.domain}\0".encode("utf-8", "surrogatepass") + text.ids.tobytes())
    model, artifact = engine.artifact.manifest.model, engine.artifact
    return {
        "keeps": list(plan.keeps), "prompt_tokens": list(plan.prompt_tokens), "seed": plan.seed,
        "continuation_tokens": plan.continuation_tokens, "policies": list(plan.policies),
        "refresh": plan.refresh,
        "model": {"id": model.id, "weights": model.weights, "setup": model.setup},
        "dtype": named_dtype(engine.model), "device": str(engine.model.device),
        "artifact": _artifact(engine), "compare": {name: _artifact(other) for name, other in compare},
        "policy_settings": vars(artifact.policy), "texts": {"count": len(texts), "sha256": content.hexdigest()},
        "batches": [ROOM, LARGEST, WINDOW],
        "versions": versions(),
    }  # fmt: skip


def _artifact(engine: Engine) -> dict[str, Any]:
    made = engine.artifact.manifest
    return {
        "sha256": engine.artifact.digest, "clusters": made.clusters,
        "passages": made.passages, "statistic": made.statistic.kind, "embedder": made.embedder.id,
    }  # fmt: skip


def paths(engine: Engine, compare: Sequence[tuple[str, Engine]]) -> dict[str, str]:
    """Where the artifacts lie, by name, "" for the one measured; relative where they lie below this folder."""
    here, roots = Path.cwd(), {"": engine.artifact.root, **{name: other.artifact.root for name, other in compare}}
    return {name: str(root.relative_to(here) if root.is_relative_to(here) else root) for name, root in roots.items()}


def seen_by_build(engine: Engine, dataset: str) -> bool:
    """Whether the artifact says that it was built from this very dataset."""
    source = engine.artifact.manifest.config.get("source")
    built = source.get("dataset") if isinstance(source, dict) else None
    if not isinstance(built, str):
        return False
    return built == dataset or Path(built).resolve() == Path(dataset).resolve()
