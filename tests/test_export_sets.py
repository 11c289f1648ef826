"""Neuron sets for other engines: the file of bits, its example reader, and the views of it."""

import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from command_line import in_new_process
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from coreinfer.errors import CoreInferError
from coreinfer.export.bits import BEGIN, Origin, SetFile, write_sets
from coreinfer.export.views import Listed, read_view, write_view
from coreinfer.neurons import NeuronSet, top
from coreinfer.paths import DEMO_CLUSTERS

ORIGIN = Origin("a" * 64, "b" * 64, "c" * 64)
EXAMPLE = ROOT / "examples" / "read_sets.py"
# Only the standard library and what is named may be imported.
BLOCK = """
import sys
allowed = set(sys.argv[1].split(","))
class Blocker:
    def find_spec(self, name, path=None, target=None):
        head = name.split(".")[0]
        if head not in allowed and not head.startswith("_sysconfigdata") and head not in sys.stdlib_module_names:
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, Blocker())
"""
SHOW = """
import runpy
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def random_set(rng: np.random.Generator, layers: int, width: int) -> NeuronSet:
    return top(rng.random((layers, width)), rng.integers(1, width + 1, layers))


def numbered(layers: int = 3, width: int = 21, count: int = 4) -> list[tuple[int, NeuronSet]]:
    rng = np.random.default_rng(0)
    return [(number, random_set(rng, layers, width)) for number in range(-1, count - 1)]


def example() -> Callable[[Path, int], list[np.ndarray]]:
    space: dict[str, Any] = {"__name__": "example"}
    exec(compile(EXAMPLE.read_text("utf-8"), str(EXAMPLE), "exec"), space)
    read: Callable[[Path, int], list[np.ndarray]] = space["read_set"]
    return read


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_sets(tmp_path / "sets.bits", ORIGIN, 0.4, numbered(), "move it")
    return tmp_path / "sets.bits"


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(1, 70), st.integers(1, 6), st.integers(0, 1 << 30))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, layers: int, width: int, count: int, seed: int
) -> None:
    place, rng = tmp_path_factory.mktemp("sets") / "sets.bits", np.random.default_rng(seed)
    sets = [(3 * number - 1, random_set(rng, layers, width)) for number in range(count)]
    write_sets(place, ORIGIN, 0.5, sets, "move it")
    found, read_set = SetFile.load(place), example()
    assert (found.layers, found.width, found.keep, found.origin) == (layers, width, 0.5, ORIGIN)
    assert found.clusters == tuple(number for number, _ in sets)
    for number, neurons in sets:
        assert found.read(number) == neurons
        assert NeuronSet(tuple(read_set(place, number)), width) == neurons


def test_the_layout_is_the_specified_one(written: Path) -> None:
    raw, sets = written.read_bytes(), numbered()
    assert raw[:8] == b"CORESETS"
    assert struct.unpack("<4Id", raw[8:32]) == (1, 3, 21, 4, 0.4)
    assert raw[32:128].hex() == "a" * 64 + "b" * 64 + "c" * 64
    assert [struct.unpack("<i", raw[160 + 36 * at :][:4])[0] for at in range(4)] == [-1, 0, 1, 2]
    bodies = raw[160 + 36 * 4 :]
    assert len(bodies) == 4 * 3 * 3
    for at, (_, neurons) in enumerate(sets):
        for layer, ids in enumerate(neurons.layers):
            row = bodies[(at * 3 + layer) * 3 :][:3]
            assert [n for n in range(21) if row[n // 8] >> n % 8 & 1] == ids.tolist()


def test_the_example_runs_where_there_is_numpy_alone(written: Path) -> None:
    said = in_new_process(BLOCK + SHOW, "numpy", EXAMPLE, written, 1)
    assert said.out == f"{numbered()[2][1].per_layer}\n", said.err
    assert len([line for line in EXAMPLE.read_text("utf-8").splitlines() if line.strip()]) < 40


def test_artifacts_open_where_there_are_numpy_and_pyarrow_alone() -> None:
    use = """
import coreinfer.artifact, coreinfer.export.bits, coreinfer.export.views
opened = coreinfer.artifact.Artifact.load(sys.argv[2])
print(opened.core(opened.prior(0), 0.4).per_layer)
"""
    said = in_new_process(BLOCK + use, "numpy,pyarrow,coreinfer", DEMO_CLUSTERS)
    assert said.out.startswith("["), said.err
    said = in_new_process(BLOCK + "import coreinfer.artifact, torch", "numpy,pyarrow,coreinfer")
    assert "torch is not there" in said.err  # what blocks, blocks


def test_a_set_of_a_large_model_is_read_at_once(tmp_path: Path) -> None:
    """128 clusters of 32 layers of 14,336 neurons: 7.3 MB, of which 57 kB are read."""
    rng, place = np.random.default_rng(0), tmp_path / "sets.bits"
    ids = tuple(np.flatnonzero(rng.random(14336) < 0.4).astype(np.int32) for _ in range(32))
    neurons = NeuronSet(ids, 14336)
    write_sets(place, ORIGIN, 0.4, [(number, neurons) for number in range(128)], "move it")
    read_set, took = example(), list[float]()
    for _ in range(20):
        start = time.process_time()  # others may have the processor meanwhile
        found = read_set(place, 77)
        took.append(time.process_time() - start)
    assert NeuronSet(tuple(found), 14336) == neurons
    assert min(took) < 0.01


@pytest.mark.parametrize("at", [0, 8, 12, 16, 20, 31, 40, 100, 140, BEGIN, BEGIN + 20, -1])
def test_a_changed_byte_is_refused(written: Path, at: int) -> None:
    raw = bytearray(written.read_bytes())
    raw[at] ^= 1
    written.write_bytes(raw)
    with pytest.raises(CoreInferError, match="is no file of neuron sets"):
        SetFile.load(written).read(2)
    with pytest.raises(ValueError, match="sets"):
        example()(written, 2)


@pytest.mark.parametrize("size", [0, 7, 100, BEGIN + 3, -1])
def test_a_cut_file_is_refused(written: Path, size: int) -> None:
    written.write_bytes(written.read_bytes()[:size])
    with pytest.raises(CoreInferError, match="is no file of neuron sets"):
        SetFile.load(written)


def test_what_is_not_there(written: Path, tmp_path: Path) -> None:
    with pytest.raises(CoreInferError, match=r"has no set 9: it has -1, 0, 1, 2"):
        SetFile.load(written).read(9)
    with pytest.raises(CoreInferError, match="cannot read the neuron sets"):
        SetFile.load(tmp_path / "none.bits")
    with pytest.raises(CoreInferError, match="by rising number"):
        write_sets(tmp_path / "x", ORIGIN, 0.4, numbered()[::-1], "move it")
    assert list(tmp_path.iterdir()) == [written]


def listed() -> Listed:
    return Listed("a model", ORIGIN, 3, 21, 0.4, tuple(numbered()))


@pytest.mark.parametrize("suffix", [".json", ".arrow", ".parquet"])
def test_views_say_the_same(suffix: str, tmp_path: Path) -> None:
    write_view(tmp_path / f"sets{suffix}", listed(), "move it")
    assert read_view(tmp_path / f"sets{suffix}") == listed()


def test_views_as_others_read_them(tmp_path: Path) -> None:
    for suffix in (".json", ".arrow"):
        write_view(tmp_path / f"sets{suffix}", listed(), "move it")
    plain = json.loads((tmp_path / "sets.json").read_text("utf-8"))
    wanted = [ids.tolist() for ids in numbered()[2][1].layers]
    assert plain["sets"][2] == {"cluster": 1, "neurons": wanted}
    table = pa.ipc.open_file(tmp_path / "sets.arrow").read_all()
    assert table.column("neurons").to_pylist()[6:9] == wanted
    assert json.loads(table.schema.metadata[b"coreinfer"])["model"]["weights"] == "a" * 64
