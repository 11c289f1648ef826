"""Artifacts that somebody made to mislead or to harm. Every hash in them is right, as a liar would see to."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import thrift_trees as tt
from crafting import (
    CLUSTERS,
    NEURONS,
    chunk,
    curve,
    explained,
    first,
    flat,
    footed,
    headed,
    hist,
    hollow,
    instead,
    letters,
    linked,
    listed,
    moved,
    other_core,
    other_index,
    paged,
    policy,
    said,
    spelled,
    text,
    wide,
)
from small_artifacts import POLICY, D, F, Fault, K, L, cells, table

from coreinfer.layout import Layout
from coreinfer.manifest import describe

NAN, HUGE = float("nan"), (1 << 31) - 1
LAYERS, SENSITIVITY = "layers.parquet", "sensitivity.parquet"


def begins(value: float) -> Callable[[Any], Any]:
    """With another first number."""
    return lambda row: [value, *row[1:]]


def replaced(value: Any) -> Callable[[Any], Any]:
    return lambda old: value


DEEP = "[" * 900 + "]" * 900
ROW = [0.0] * F
LISTED: list[tuple[str, Fault]] = [
    ("page of 2 GiB", paged(NEURONS, 2, 2, HUGE)),
    ("page of 2 GiB stored", paged(NEURONS, 2, 3, HUGE)),
    ("page of minus 1 byte", paged(NEURONS, 2, 2, -1)),
    ("page without a checksum", paged(NEURONS, 2, 4, None)),
    ("page of another checksum", paged(CLUSTERS, 3, 4, 7)),
    ("page of 2^31 values", headed(NEURONS, 2, 1, HUGE)),
    ("page of a strange encoding", headed(NEURONS, 2, 2, 5)),
    ("page of a strange kind", paged(LAYERS, 0, 1, 1)),
    ("dictionary of 2^31 values", headed(CLUSTERS, 5, 1, HUGE)),
    ("footer: 2^40 values", chunk(NEURONS, 2, tt.VALUES, 1 << 40)),
    ("footer: unknown codec", chunk(NEURONS, 2, tt.CODEC, -59)),
    ("footer: levels of another column", footed(CLUSTERS, hist)),
    *(
        (f"{name} of {size:,} bytes, explained", explained(name, size))
        for name, size in ((NEURONS, 1 << 40), (CLUSTERS, 1 << 29))
    ),
    *((f"{name} of 500 GB", hollow(name)) for name in (CLUSTERS, NEURONS, LAYERS, "calibration.json", "index.faiss")),
    ("footer: other codec", chunk(SENSITIVITY, 1, tt.CODEC, 2)),
    ("footer: page before the file", chunk(NEURONS, 2, tt.DATA_AT, -5)),
    ("footer: page behind the file", chunk(NEURONS, 2, tt.DATA_AT, 1 << 50)),
    ("footer: chunk of 2^50 bytes", chunk(NEURONS, 2, tt.STORED, 1 << 50)),
    ("footer: another file", footed(NEURONS, lambda f: tt.column(f, 0, 2).update({tt.FILE_PATH: (8, b"/etc/passwd")}))),
    ("footer: 2^40 rows", footed(LAYERS, lambda f: f[tt.GROUPS][1][1][0].update({tt.GROUP_ROWS: (tt.I64, 1 << 40)}))),
    ("footer: a million columns", footed(LAYERS, lambda f: f.update({tt.SCHEMA: (9, (12, f[2][1][1] * 200_000))}))),
    ("footer: no row groups", footed(SENSITIVITY, lambda f: f.update({tt.GROUPS: (9, (12, []))}))),
    ("a term of a MB, 4,000 times", letters(4_000, 1 << 20, "terms")),
    ("more than a million terms", letters(1_100_000, 1, "terms")),
    ("an example of 100 MB", letters(1, 100_000_000, "examples")),
    ("core sets of 100 MB", first("neurons", "core", lambda core: bytes(100_000_000))),
    ("two million rows of budgets", table("layers", lambda t: t.take([0] * (1 << 21)), rows=1 << 21)),
    ("columns of lists of lists", table("layers", lambda t: t.append_column("x", pa.array([[[[1]]]] * len(t))))),
    ("statistic in float64", wide(2, pa.list_(pa.float64(), F))),
    ("core as text", wide(3, pa.large_binary())),
    *((f"centroid of {x}", first("clusters", "centroid", begins(x))) for x in (NAN, float("inf"), 3e38, 2.0)),
    ("terminal commands in a term", first("clusters", "terms", replaced(["\x1b[2J"]))),
    ("zero centroid", first("clusters", "centroid", lambda row: [0.0] * D)),
    (
        "equal centroids",
        table("clusters", lambda t: t.set_column(3, t.schema.field(3), t["centroid"].take([1, *range(1, K)]))),
    ),
    ("clusters twice", table("clusters", lambda t: t.take([0, 0, *range(2, K)]))),
    ("other dimension", said(dimension=D - 1)),
    ("other width", said(width=F - 1)),
    ("fewer layers", said(layers=L - 1)),
    ("fewer clusters", said(clusters=K - 1)),
    ("more passages", said(passages=41)),
    ("fewer tokens", said(tokens=399)),
    ("2^39 neurons", said(layers=1 << 20, width=1 << 19)),
    ("2^60 coordinates", said(clusters=1 << 30, dimension=1 << 30)),
    ("negative size", first("clusters", "size", lambda n: -n)),
    ("size of 2^62", first("clusters", "size", lambda n: 1 << 62)),
    ("sizes of 2^63", cells("clusters", "size", (1 << 63) - 1)),
    ("tokens moved", first("clusters", "tokens", lambda n: n + 1)),
    *(
        (f"quantiles {q}", first("clusters", "similarity_quantiles", replaced(q)))
        for q in ([NAN] * 5, [0.9, 0.8, 0.7, 0.6, 0.5], [0.0, 0.1, 0.2, 0.3, 7.0])
    ),
    ("negative statistic", first("neurons", "statistic", lambda row: [-row[0], *row[1:-1], row[-1] + 2 * row[0]])),
    ("statistic of sum 2", first("neurons", "statistic", lambda row: [2 * x for x in row])),
    ("statistic of infinities", first("neurons", "statistic", lambda row: [float("inf"), *row[1:]])),
    ("statistic of nothing", first("neurons", "statistic", lambda row: ROW)),
    ("a layer is missing", table("neurons", lambda t: t.take([i for i in range(len(t)) if i % L]), rows=L - 1)),
    ("a layer twice", table("neurons", lambda t: t.take([i - (i % L == 1) for i in range(len(t))]))),
    ("other core set", first("neurons", "core", other_core)),
    ("empty core set", first("neurons", "core", lambda c: bytes(len(c)))),
    ("core set of all", first("neurons", "core", lambda c: b"\xff" * len(c))),
    ("core set beyond the width", first("neurons", "core", lambda c: c[:-1] + bytes([c[-1] | 128]))),
    ("statistic of other neurons", moved),
    ("other shrinkage", policy(shrink=80.0)),
    ("other keep", said(default_keep=0.31)),
    ("budgets over the width", first("layers", "budget", lambda n: F + 1)),
    ("budgets of 2^62", cells("layers", "budget", 1 << 62)),
    ("budgets that fall", first("layers", "budget", lambda n: n + 10)),
    ("budgets of all", cells("layers", "budget", F)),
    ("keep of 2", cells("layers", "keep", 2.0)),
    *((f"weight {x}", first("sensitivity", "weight", begins(x))) for x in (NAN, -1.0, float("inf"))),
    ("name twice in the manifest", spelled('"seed": 0', '"seed": 0, "seed": 0')),
    ("name twice deep inside", spelled('"config": {}', '"config": {"a": [{"b": 1, "b": 2}]}')),
    ("no UTF-8", spelled('"config": {}', b'"config": {"a": "\xff"}')),
    ("half of a letter", spelled('"demo"', '"\\ud83d"')),
    ("NaN in the manifest", spelled('"config": {}', '"config": {"a": NaN}')),
    ("1e999 in the manifest", spelled('"config": {}', '"config": {"a": 1e999}')),
    ("nested config", spelled('"config": {}', f'"config": {{"a": {DEEP}}}')),
    ("very deep config", spelled('"config": {}', '"config": ' + '{"a":' * 200_000)),
    ("endless integer", spelled('"seed": 0', f'"seed": {"9" * 1_000_000}')),
    ("seed of 2^64", said(seed=1 << 64)),
    ("manifest of 5 MB", spelled('"config": {}', '"config": {"a": "' + "a" * 5_000_000 + '"}')),
    ("many empty lists", spelled('"config": {}', '"config": {"a": [' + "[]," * 340_000 + "[]]}")),
    ("terminal commands", spelled('"demo"', '"\\u001b[2Jdemo"')),
    ("calibration of 5 MB", text("calibration.json", json.dumps({"policy": asdict(POLICY), "a": "a" * 5_000_000}))),
    ("deep calibration", text("calibration.json", "[" * 500_000)),
    (
        "name twice in the policy",
        text("calibration.json", json.dumps({"policy": asdict(POLICY)}).replace("{", '{"policy": 1, ', 1)),
    ),
    (
        "no UTF-8 in the calibration",
        text(
            "calibration.json", json.dumps({"policy": asdict(POLICY), "a": "é"}, ensure_ascii=False).encode("latin-1")
        ),
    ),
    *(
        (f"{name} {x}", policy(**{name: x}))
        for name, x in (
            ("threshold", NAN),
            ("threshold", 5.0),
            ("threshold", True),
            ("strong", -0.5),
            ("sharpness", 0.0),
            ("sharpness", -6.0),
            ("sharpness", 10**400),
            ("n0", -1.0),
            ("n0", NAN),
            ("mixture", 0),
            ("mixture", True),
            ("mixture", 10**30),
            ("doubt", 2.0),
            ("doubt_fall", 1e8),
            ("shrink", -1.0),
            ("shrink", None),
            ("auto", "none"),
        )
    ),
    *(
        (f"curve with {name} {x}", curve(**{name: x}))
        for name, x in (
            ("keep", NAN),
            ("keep", 2.0),
            ("keep", True),
            ("rise", "0.1"),
            ("rise", 1e300),
            ("rise_high", 0.0),
            ("rise", None),
        )
    ),
    ("index of 2^62", flat(8, (1 << 62).to_bytes(8, "little"))),
    ("index of 2^61 floats", flat(37, (1 << 61).to_bytes(8, "little"))),
    ("index of another kind", flat(0, b"IxF2")),
    ("index by distance", other_index("L2")),
    ("index of graphs", other_index("HNSW")),
    ("index of other vectors", flat(45, b"\0\0\0\0")),
    ("index of another metric", flat(33, b"\1")),
    ("index of other dimensions", flat(4, b"\xff\xff\xff\x7f")),
    ("untrained index", flat(32, b"\0")),
]

NAMES = ("..", ".", "../outside", "/etc/hostname", "/dev/zero", "a/../b", "manifest.json", "nul\0byte", "\x1b[2J", "")
LISTED += [
    *((f"lists {name!r}", listed(name)) for name in NAMES),
    *((f"link to {name}", linked(name)) for name in (CLUSTERS, "manifest.json", "index.faiss")),
    ("link to a device", instead("calibration.json", lambda path: path.symlink_to("/dev/zero"))),
    ("link into nothing", instead("index.faiss", lambda path: path.symlink_to("nowhere"))),
    ("link to itself", instead(LAYERS, lambda path: path.symlink_to(path.name))),
    ("endless manifest", instead("manifest.json", lambda path: path.symlink_to("/dev/zero"))),
    ("pipe", instead("calibration.json", os.mkfifo)),
    ("pipe for a manifest", instead("manifest.json", os.mkfifo)),
    ("folder", instead(NEURONS, Path.mkdir)),
]


def make(root: Path, fault: Fault) -> None:
    """Do it, and let the manifest fit what the files are now; a fault of the manifest's own stays as it is."""
    layout = Layout(root)
    before = layout.manifest.read_bytes()
    fault(root)
    files = [*layout.required, layout.index]
    plain = all(path.is_file() and not path.is_symlink() for path in [layout.manifest, *files])
    if plain and layout.manifest.read_bytes() == before:
        made = json.loads(before) | {"files": describe(tuple(files))}
        layout.manifest.write_text(json.dumps(made))


def all_made(whole: Path, at: Path) -> dict[str, str]:
    """Every one of them in a folder of its own below ``at``: the folders, and what each is."""
    out = dict[str, str]()
    for number, (name, fault) in enumerate(LISTED):
        root = Path(shutil.copytree(whole, at / f"crafted-{number}"))
        make(root, fault)
        out[str(root)] = name
    return out
