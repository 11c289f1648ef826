"""Neuron lists from other hands: what is right becomes a file of sets, what is wrong is one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_cli
from safetensors import safe_open

from coreinfer.artifact import Artifact
from coreinfer.export.bits import SetFile
from coreinfer.export.views import KEY, SCHEMA
from coreinfer.paths import DEMO_CLUSTERS

L, F = 6, 2560
MADE = Artifact.load(DEMO_CLUSTERS).manifest.model


def plain() -> dict[str, Any]:
    """By hand, for the demo LM: unsorted ids, no hashes, no keep, no numbers of clusters."""
    sets = [{"neurons": [[9, 4, 7, at] for at in range(10, 10 + L)]}, {"neurons": [[at] for at in range(L)]}]
    return {"format": "coreinfer-sets", "version": 1, "model": {"id": "demo"}, "layers": L, "width": F, "sets": sets}


def written(place: Path, raw: Any) -> Path:
    place.write_text(json.dumps(raw), "utf-8")
    return place


def test_a_list_by_hand(tmp_path: Path) -> None:
    file = written(tmp_path / "mine.json", plain())
    said = run_cli("import", file, "-o", tmp_path / "mine.bits", "--model", "demo", "--json", "-q")
    assert said.code == 0, said.err
    assert said.rows[0]["sets"] == {"0": round(4 / F, 6), "1": round(1 / F, 6)}
    found = SetFile.load(tmp_path / "mine.bits")
    assert (found.origin.weights, found.origin.setup) == (MADE.weights, MADE.setup)
    assert [ids.tolist() for ids in found.read(0).layers] == [[4, 7, 9, at] for at in range(10, 10 + L)]
    made = run_cli(
        "export", "--to", "safetensors", "--neurons", tmp_path / "mine.bits", "-c", 0, "-o", tmp_path / "x", "-q"
    )
    assert made.code == 0, made.err
    with safe_open(tmp_path / "x" / "model.safetensors", "pt") as held:
        assert held.get_tensor("model.layers.3.mlp.down_proj.weight").shape == (320, 4)


def test_a_table(tmp_path: Path) -> None:
    """Another tool's Parquet, which says whose neurons they are, needs no model."""
    model = {"id": "demo", "weights": MADE.weights, "setup": MADE.setup}
    head = {name: value for name, value in plain().items() if name != "sets"} | {"model": model, "keep": 0.01}
    columns: list[list[Any]] = [[3] * L + [5] * L, [*range(L)] * 2, [[1, 2, at + 3] for at in range(2 * L)]]
    schema = SCHEMA.with_metadata({KEY: json.dumps(head)})
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), tmp_path / "x.parquet", write_page_checksum=True)
    assert run_cli("import", tmp_path / "x.parquet", "-o", tmp_path / "x.bits", "-q").code == 0
    found = SetFile.load(tmp_path / "x.bits")
    assert (found.clusters, found.keep) == ((3, 5), 0.01)
    assert found.read(5).layers[1].tolist() == [1, 2, 10]


Change = Callable[[dict[str, Any]], Any]
FAULTS: list[tuple[Change, str]] = [
    (
        lambda raw: raw["sets"][0]["neurons"][2].append(F),
        "cluster 0: layer 2 of the neuron set has neuron 2560 of 2560",
    ),
    (lambda raw: raw["sets"][0]["neurons"][2].append(9), "cluster 0: layer 2 of the neuron set has neuron 9 after 9"),
    (lambda raw: raw["sets"][0]["neurons"][2].append(-1), "there is neuron -1"),
    (lambda raw: raw["sets"][0]["neurons"][2].append(1.5), "layer 2 of set 0 has 1.5, no neuron's number"),
    (lambda raw: raw["sets"][0]["neurons"][2].append(True), "layer 2 of set 0 has True, no neuron's number"),
    (lambda raw: raw["sets"][1]["neurons"].pop(), "cluster 1 has 5 layers of 6"),
    (lambda raw: raw["sets"][1]["neurons"][3].clear(), "layer 3 of cluster 1 keeps no neuron"),
    (lambda raw: raw["sets"][1].update(cluster=0), "its clusters are not by rising number"),
    (lambda raw: raw["sets"][1].update(cluster="one"), "cluster is 'one', no whole number"),
    (lambda raw: raw["sets"].clear(), "it holds no set"),
    (lambda raw: raw.pop("sets"), "sets is None, no list"),
    (lambda raw: raw.pop("width"), "it lacks 'width'"),
    (lambda raw: raw.update(width=0), "width is 0"),
    (lambda raw: raw.update(keep=0), "keep is 0"),
    (lambda raw: raw.update(version=2), "format 'coreinfer-sets' version 2"),
    (lambda raw: raw["model"].update(weights="a" * 64), "model has one of weights and setup"),
    (
        lambda raw: raw["model"].update(weights="a" * 64, setup="b" * 64),
        "sets of a model with other weights than 'demo'",
    ),
    (lambda raw: raw.update(width=F + 8), "is for 6 layers of 2568 neurons, 'demo' has 6 of 2560"),
]


@pytest.mark.parametrize(("change", "line"), FAULTS)
def test_what_is_wrong_is_said(change: Change, line: str, tmp_path: Path) -> None:
    raw = plain()
    change(raw)
    file = written(tmp_path / "mine.json", raw)
    said = run_cli("import", file, "-o", tmp_path / "mine.bits", "--model", "demo", "-q")
    assert (said.code, said.out) == (2, "")
    assert line in said.err
    assert said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [file]


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, content, line in (
        ("x.json", b"{", "is no list of neuron sets"),
        ("x.parquet", b"PAR1 and nothing", "is no list of neuron sets"),
        ("x.arrow", b"ARROW1", "is no list of neuron sets"),
        ("x.txt", b"3 4 5", "has the suffix '.txt': give a .json, .parquet or .arrow file"),
    ):
        (tmp_path / name).write_bytes(content)
        said = run_cli("import", tmp_path / name, "-o", tmp_path / "out.bits", "-q")
        assert said.code == 2
        assert line in said.err
    assert "cannot read" in run_cli("import", tmp_path / "none.json", "-o", tmp_path / "out.bits", "-q").err
    file = written(tmp_path / "mine.json", plain())
    assert "give --model NAME" in run_cli("import", file, "-o", tmp_path / "out.bits", "-q").err
    assert "give a .bits file" in run_cli("import", file, "-o", tmp_path / "out.json", "-q").err
    (tmp_path / "out.bits").write_bytes(b"mine")
    there = ("import", file, "-o", tmp_path / "out.bits", "-q")
    assert "give --model NAME" in run_cli(*there).err
    assert "exists already" in run_cli(*there, "--model", "demo").err
