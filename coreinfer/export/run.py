"""An export as a whole: refused before a byte is written, or there when it is whole."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coreinfer import disk
from coreinfer.artifact import GLOBAL, Artifact
from coreinfer.errors import CoreInferError
from coreinfer.export.bits import Origin, write_sets
from coreinfer.export.card import About, Sizes, card, facts_of
from coreinfer.export.choosing import Chosen, of_clusters
from coreinfer.export.names import INDEX, MODELS, SETS
from coreinfer.export.views import Listed, write_view
from coreinfer.places import check_place, folder_moved_in, writing
from coreinfer.wording import counted

REMEDY = "choose another --output"
ROOM = 64 << 20  # bytes for what lies beside the weights


def check_output(path: Path) -> None:
    """
    Raises:
        CoreInferError: something is there, or nothing can be.
    """
    check_place(path, REMEDY)
    if os.path.lexists(path):
        raise CoreInferError(f"{path} exists already: {REMEDY}, or remove it first")


def check_room(path: Path, size: int) -> None:
    """
    Raises:
        CoreInferError: the disk has not so many bytes free.
    """
    there = next(folder for folder in path.absolute().parents if folder.exists())
    free = shutil.disk_usage(there).free
    if size + ROOM > free:
        raise CoreInferError(
            f"the export takes {(size + ROOM) / 1e9:.2f} GB, and {there} has {free / 1e9:.2f} GB free: free some "
            "space, export fewer clusters, or choose another --output"
        )


def write_models(
    model: Any, tokenizer: Any, chosen: Sequence[Chosen], about: About, target: str, kind: str, output: Path,
    is_uniform: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """A folder with a model, or with a folder for each of several and ``models.json``, which lists them.

    Raises:
        CoreInferError: the runtime cannot hold the model, the output exists, or there is no room.
    """
    from coreinfer.export.targets import check_target
    from coreinfer.export.writing import Writer

    check_output(output)
    check_target(target, model, MODELS)
    writer = Writer(model, tokenizer, target, kind)
    planned = [writer.planned(one.neurons) for one in chosen]
    check_room(output, sum(one.size for one in planned))
    facts = list[dict[str, Any]]()
    with writing(output, REMEDY), folder_moved_in(output, replacing=False) as (made, _):
        for one, plan in zip(chosen, planned, strict=True):
            place = made if len(chosen) == 1 else made / one.name
            place.mkdir(exist_ok=True)
            plan.write(place)
            sizes: Sizes = writer.sizes(plan, one.neurons)
            (place / "README.md").write_text(card(one, about, target, kind, sizes, is_uniform), "utf-8")
            facts.append(facts_of(one, sizes, output if len(chosen) == 1 else output / one.name))
        if len(chosen) > 1:
            _write_index(made / INDEX, facts, about, target, kind)
        _sync_below(made)
    return facts


def _write_index(path: Path, facts: list[dict[str, Any]], about: About, target: str, kind: str) -> None:
    """What a router needs of several models: which cluster lies in which folder."""
    models = [{"cluster": row["cluster"], "folder": row["name"], "terms": row["terms"]} for row in facts]
    whole = {"model": about.model, "artifact": about.digest, "target": target, "weights": kind, "models": models}
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _sync_below(folder: Path) -> None:
    """What lies deeper than ``folder_moved_in`` looks."""
    for path in folder.rglob("*"):
        if path.parent != folder:
            disk.sync(path)


def write_neuron_sets(artifact: Artifact, clusters: Sequence[int], keep: float, target: str, output: Path) -> Path:
    """A folder with the sets of these clusters, or of all and the global prior, in one file; and what they are of.

    Raises:
        CoreInferError: a number that no cluster has, the output exists, or there is no room.
    """
    check_output(output)
    made = artifact.manifest
    numbers = sorted(clusters) or range(GLOBAL, made.clusters)
    each = 16 if target == "json" else 4  # bytes of an id, at most
    check_room(output, made.layers * made.width * len(numbers) * (1 if target == "numpy" else each))
    sets = [(one.cluster, one.neurons) for one in of_clusters(artifact, numbers, keep) if one.cluster is not None]
    origin = Origin(made.model.weights, made.model.setup, artifact.digest)
    with writing(output, REMEDY), folder_moved_in(output, replacing=False) as (folder, _):
        path = folder / SETS[target]
        if target == "numpy":
            write_sets(path, origin, keep, sets, REMEDY)
        else:
            write_view(path, Listed(made.model.id, origin, made.layers, made.width, keep, tuple(sets)), REMEDY)
        (folder / "README.md").write_text(_sets_card(artifact, origin, keep, len(sets), path.name), "utf-8")
    return output / SETS[target]


def _sets_card(artifact: Artifact, origin: Origin, keep: float, count: int, name: str) -> str:
    made = artifact.manifest
    return f"""# {counted(count, "neuron set")} of `{made.model.id}`

`{name}`: for each cluster, the MLP neurons that each of {made.layers} layers of {made.width:,} keeps at keep {keep:g},
{int(artifact.budgets(keep).sum()):,} in all; `artifacts/FORMAT.md` of coreinfer specifies the file.

| | |
|---|---|
| model | weights {origin.weights} |
| artifact | manifest sha256 {origin.manifest} |
"""
