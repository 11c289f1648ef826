"""An artifact as the JSON that its pictures are drawn from: the clusters on the map, policy, curve and budgets."""

from dataclasses import asdict
from typing import Any

from coreinfer.artifact import Artifact
from coreinfer.map_layout import SHEET, MapLayout, lay_out

SHOWN_KEEPS = tuple(round(0.1 * step, 1) for step in range(1, 11))


def overview(artifact: Artifact) -> dict[str, Any]:
    """All that a map with terms and sizes, and the curves beside it, show; plain numbers, texts and lists.

    ``map``: the sheet's pixels, y downwards; each of ``clusters`` has its place ``x``, ``y``, its radius ``r``, and its
    neighbourhood ``group`` (0 to 9). ``similarity``: quantiles of members at 0.05, 0.25, 0.5, 0.75, 0.95. ``curve``:
    what a keep costs, [] where it was not measured. ``budgets``: neurons of each layer at each keep. The layout takes a
    second for 128 clusters, half a minute for 1,000.
    """
    made = artifact.manifest
    return {
        "model": made.model.id,
        "embedder": made.embedder.id,
        "layers": made.layers,
        "width": made.width,
        "passages": made.passages,
        "tokens": made.tokens,
        "statistic": made.statistic.kind,
        "keep": made.default_keep,
        "policy": asdict(artifact.policy),
        "curve": artifact.calibration.get("curve") or [],
        "budgets": [{"keep": keep, "neurons": artifact.budgets(keep).tolist()} for keep in SHOWN_KEEPS],
        "map": {"width": SHEET[0], "height": SHEET[1]},
        "clusters": _clusters(artifact, lay_out(artifact.centroids, artifact.sizes)),
    }


def _clusters(artifact: Artifact, layout: MapLayout) -> list[dict[str, Any]]:
    return [
        {
            "cluster": c,
            "size": int(artifact.sizes[c]),
            "terms": artifact.terms[c],
            "similarity": [round(float(value), 4) for value in artifact.quantiles[c]],
            "x": round(float(layout.spots[c][0]), 1),
            "y": round(SHEET[1] - float(layout.spots[c][1]), 1),
            "r": round(float(layout.radii[c]), 1),
            "group": int(layout.groups[c]),
        }
        for c in range(artifact.manifest.clusters)
    ]
