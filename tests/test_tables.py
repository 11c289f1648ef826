"""Tables that do not follow the format are refused, though their hashes are right."""

import json
from dataclasses import asdict
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest
from small_artifacts import POLICY, D, F, Fault, K, L, cells, put, refused, rewrite_manifest, table
from small_artifacts import copy as copy
from small_artifacts import whole as whole

from coreinfer.layout import Layout
from coreinfer.manifest import describe


def text(name: str, content: str) -> Fault:
    return lambda root: (root / name).write_text(content)


def policy(**changes: Any) -> Fault:
    return text("calibration.json", json.dumps({"policy": {**asdict(POLICY), **changes}}))


TABLES, NAN = ("clusters", "neurons", "layers"), float("nan")
BROKEN: list[Fault] = [
    *(table("clusters", methodcaller("drop_columns", [name])) for name in ("cluster", "centroid", "size", "terms")),
    *(table("neurons", methodcaller("drop_columns", [name])) for name in ("cluster", "layer", "statistic", "core")),
    *(table(name, methodcaller("slice", *part)) for name in TABLES for part in ((1,), (0, 0))),
    *(table(name, lambda t: t.take(list(range(len(t)))[::-1])) for name in TABLES),
    *(table(name, lambda t: t, rows=2) for name in TABLES), text("clusters.parquet", "PAR1 and nothing"),
    table("clusters", lambda t: t.append_column("extra", t["size"])), cells("clusters", "terms", [None]),
    table("neurons", lambda t: t.take([i // L * L + (i + 1) % L for i in range(len(t))])),
    *(cells("clusters", "centroid", [x] * D) for x in (0.0, 1.0, NAN, None)),
    *(cells("clusters", name, None) for name in ("centroid", "size", "similarity_quantiles", "terms", "examples")),
    *(cells("neurons", "statistic", x) for x in ([0.0] * F, [1.0] * F, [NAN] * F, [-1.0, 2.0] + [0.0] * (F - 2), None)),
    *(cells("neurons", "core", x) for x in (None, b"", b"x" * 6, b"x" * 8)),
    *(cells("layers", "budget", x) for x in (-1, F + 1, None)), *(cells("layers", "keep", x) for x in (0.5, NAN, None)),
    *(text("calibration.json", json.dumps({"policy": asdict(POLICY), "curve": curve})) for curve in (
        [{"keep": 0.4}], [{"keep": 0.4, "rise": "0.1"}], [{"keep": 1.4, "rise": 0.1}], [7], {"keep": 0.4},
        [{"keep": 0.4, "rise": 0.1}, {"keep": 0.2, "rise": 0.2}], [{"keep": float("nan"), "rise": 0.1}],
    )),
    *(text("calibration.json", x) for x in ("", "{}", "[]", "null", '{"policy": {"auto": "hybrid"}}', "[" * 100_000)),
    policy(auto="other"), policy(auto=["hybrid"]), policy(extra=1), policy(threshold=None), policy(n0=-1.0),
    *(policy(mixture=m) for m in (0, 2.5, "3", None)), *(policy(sharpness=x) for x in (NAN, 1e999, "12")),
]  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_right_hashes_do_not_make_right_content(copy: Path, fault: Fault) -> None:
    fault(copy)
    layout = Layout(copy)
    rewrite_manifest(copy, put("files", value=describe((*layout.required, layout.index))))
    refused(copy, "rebuild")


def test_a_table_that_claims_too_much_is_not_read(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coreinfer.tables.MOST_VALUES", K * D - 1)  # lists count by their elements
    refused(whole, "clusters.parquet", "claims")
