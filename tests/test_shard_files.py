"""Shards on disk: files that are whole or not there, a folder of one key, sums that count each shard once."""

import errno
import json
import os
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coreinfer import CoreInferError, disk
from coreinfer.claims import used
from coreinfer.machine import versions
from pipeline.data import Candidates, Statistics
from pipeline.passages import BLOCK, Passage, read_rows, write_passages
from pipeline.shards import keys, parts
from pipeline.shards import store as store_module
from pipeline.shards.arrays import read_arrays, write_arrays
from pipeline.shards.cache import tidy
from pipeline.shards.looking import look
from pipeline.shards.plan import Plan
from pipeline.shards.scratch import scratch
from pipeline.shards.sealed import open_sealed, write_sealed
from pipeline.shards.store import Store, begun_with, open_store

RNG = np.random.default_rng(0)


def test_processors_of_other_instructions_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 products of AMX, of AVX512 and of what stands in for both are not the same in their last bits."""
    kinds = set[str]()
    for units in ({}, {"avx512_bf16": True}, {"avx512_bf16": True, "amx_bf16": True, "sse2": True}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda units=units: units, raising=False)
        kinds.add(keys.processor("cpu"))
    assert len(kinds) == 3
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert keys.processor("cpu") not in kinds
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # an older torch
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert "amx_tile" in keys.processor("cpu")


def test_a_worker_that_would_compute_otherwise_is_refused(tmp_path: Path) -> None:
    facts = {"processor": keys.processor("cpu"), "version": versions() | {"faiss": "0"}}
    store = open_store(tmp_path / "store", facts, lambda line: None, shared=False)
    with pytest.raises(CoreInferError, match=r"has version.faiss 'none', the build was begun with '0': use machines"):
        keys.check_here(store, "cpu")
    with pytest.raises(CoreInferError, match=r"does not see .*elsewhere as it was opened"):
        keys.check_here(Store(tmp_path / "elsewhere", store.key), "cpu")


def test_rows_are_read_across_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.passages.WINDOW", 4)
    write_passages((Passage(i, str(i), "here") for i in range(11)), tmp_path / "p.parquet")
    for rows in (range(11), range(3), range(4, 8), range(3, 10), range(10, 11)):
        assert read_rows(tmp_path / "p.parquet", rows) == [str(i) for i in rows]


def test_a_sealed_file_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    path, raw = tmp_path / "sealed", RNG.bytes(1000)
    assert open_sealed(path, "key") is None
    write_sealed(path, "key", [raw[:300], b"", raw[300:]])
    found = open_sealed(path, "key")
    assert found is not None
    assert found.tobytes() == raw
    assert open_sealed(path, "another") is None
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole + b"x", b"", whole[:20], bytes([whole[0] ^ 1]) + whole[1:]):
        path.write_bytes(damaged)
        assert open_sealed(path, "key") is None
    assert os.listdir(tmp_path) == ["sealed"]


def test_a_short_write_goes_on_and_a_failed_one_leaves_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, raw = tmp_path / "sealed", RNG.bytes(1000)
    put = disk.put
    monkeypatch.setattr(disk, "put", lambda file, data: put(file, data[:7]))
    write_sealed(path, "key", [raw])
    before = path.read_bytes()

    def full(file: FileIO, data: memoryview) -> int:
        put(file, data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    for fault in (full, lambda file, data: 0):
        monkeypatch.setattr(disk, "put", fault)
        with pytest.raises(OSError, match=r"No space left|takes no more"):
            write_sealed(path, "key", [raw[::-1]])
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["sealed"]


def test_arrays_round_trip_as_views(tmp_path: Path) -> None:
    arrays: list[NDArray[Any]]
    arrays = [RNG.integers(0, 9, (3, 4)), RNG.normal(size=(2, 0, 5)).astype(np.float32), np.arange(7, dtype=np.int32)]
    write_arrays(tmp_path / "some", "key", {"shards": [1, 2]}, arrays)
    found = read_arrays(tmp_path / "some", "key")
    assert found is not None
    assert found[0] == {"shards": [1, 2]}
    for mine, theirs in zip(arrays, found[1], strict=True):
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        assert np.array_equal(mine, theirs)
        assert not theirs.flags.writeable


def some_sums(shards: set[int]) -> Statistics:
    """Of shards of one passage each, in the first cluster if their number is even."""
    out = Statistics.zeros(2, 1, 3)
    out.sums += sum(1 << shard for shard in shards)
    out.passages[:] = np.bincount([shard % 2 for shard in shards], minlength=2)
    return out


def store_at(folder: Path) -> Store:
    return open_store(folder / "store", {"seed": 1}, lambda line: None, shared=False)


def test_each_shard_counts_once(tmp_path: Path) -> None:
    """Whoever did more comes first; who has a shard of theirs does not count, nor does what is damaged, or has other
    passages than its shards have.
    """
    store = store_at(tmp_path)
    options = Candidates([np.eye(2, dtype=np.float32)], np.array([[0, 1, 0, 1, 0, 1, 0, 1]], np.int32))
    parts.write_clusters(store.at("clusters"), store.key, options)
    for slot, shards in {"a": {0, 1}, "b": {2, 3, 4}, "c": {1, 2}, "d": {5}, "e": {6}}.items():
        parts.write_sums(store, slot, shards, some_sums(shards))
    raw = bytearray(store.at("sums-d").read_bytes())
    raw[100] ^= 1
    store.at("sums-d").write_bytes(raw)
    twice = some_sums({7})
    twice.passages[1] += 1
    parts.write_sums(store, "f", {7}, twice)
    counted, left_out = parts.disjoint(store, Plan(8, 1))
    assert {running.slot: sorted(running.shards) for running in counted} == {"a": [0, 1], "b": [2, 3, 4], "e": [6]}
    assert left_out == {"c", "d", "f"}
    assert parts.added(counted, (2, 1, 3)).sums.tolist() == [[[0b1011111] * 3]] * 2


def test_who_begins_a_shared_folder_first_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where two find it empty in the same moment: the second sees what the first one wrote, and is refused."""
    folder, first = tmp_path / "shared", {"model": "a"}
    open_store(folder, first, print, shared=True)
    read = store_module._read
    answers = [None]  # what the second saw, before the first was there
    monkeypatch.setattr(store_module, "_read", lambda place: answers.pop() if answers else read(place))
    with pytest.raises(CoreInferError, match="holds parts made with model 'a', here it is 'b'"):
        open_store(folder, {"model": "b"}, print, shared=True)
    assert json.loads((folder / "key.json").read_text("utf-8"))["facts"] == first
    assert [path.name for path in folder.iterdir()] == ["key.json"]


def test_embeddings_and_clusters_round_trip(tmp_path: Path) -> None:
    store, vectors = store_at(tmp_path), RNG.normal(size=(5, 4)).astype("<f4")
    parts.write_embeddings(store, 3, vectors)
    assert np.array_equal(np.load(store.at("0000003.npy")), vectors)  # with a seal it is still a .npy file
    parts.write_embeddings(store, 0, vectors)
    with store.at("0000000.npy").open("r+b") as file:
        file.truncate(100)
    assert parts.embedded(store, Plan(5 * BLOCK, BLOCK)) == {3}
    parts.write_embeddings(store, 0, vectors)
    assert parts.embedded(store, Plan(5 * BLOCK, BLOCK)) == {0, 3}
    options = Candidates([vectors[:1], vectors[1:3]], np.array([[0, 0, -1], [1, 2, -1]], np.int32))
    parts.write_clusters(store.at("clusters"), "key", options)
    found = parts.read_clusters(store.at("clusters"), "key")
    assert found is not None
    assert [each.tolist() for each in found.centroids] == [each.tolist() for each in options.centroids]
    assert np.array_equal(found.labels, options.labels)


def test_other_facts_are_refused_by_name(tmp_path: Path) -> None:
    facts = {"version": {"torch": "2.6", "transformers": "5.0"}, "seed": 1}
    open_store(tmp_path, facts, lambda line: None, shared=True)
    open_store(tmp_path, facts, lambda line: None, shared=True)
    with pytest.raises(CoreInferError, match=r"made with version.torch '2.6', here it is '2.7'"):
        open_store(tmp_path, facts | {"version": {"torch": "2.7", "transformers": "5.0"}}, lambda line: None, True)
    with pytest.raises(
        CoreInferError, match=r"made with keep 0.4, here it is None|made with keep None, here it is 0.4"
    ):
        open_store(tmp_path, facts | {"keep": 0.4}, lambda line: None, shared=True)


@pytest.mark.parametrize("shared", [False, True])
def test_another_version_is_begun_anew_or_refused(tmp_path: Path, shared: bool) -> None:
    """A folder of one's own is begun anew; one that others work in is left alone."""
    store, said = store_at(tmp_path), list[str]()
    store.at("0000000.npy").write_bytes(b"of a version to come")
    made = json.loads(store.at("key.json").read_text())
    store.at("key.json").write_text(json.dumps(made | {"version": 99}))
    if shared:
        with pytest.raises(CoreInferError, match="another version of coreinfer"):
            open_store(store.folder, {"seed": 1}, said.append, shared=True)
        return
    open_store(store.folder, {"seed": 1}, said.append, shared=False)
    assert said == [f"{store.folder} is of another version of coreinfer, or damaged, and is begun anew"]
    assert os.listdir(store.folder) == ["key.json"]


@pytest.mark.parametrize("damaged", ["{", "[" * 100_000, '{"facts": ' * 99 + "1" + "}" * 99, "", "[]", '"\\ud800"'])
def test_a_damaged_key_is_written_anew(tmp_path: Path, damaged: str) -> None:
    """The parts stay: each is sealed with the key."""
    store = store_at(tmp_path)
    parts.write_embeddings(store, 0, RNG.normal(size=(5, 4)).astype("<f4"))
    store.at("key.json").write_text(damaged)
    assert parts.embedded(store_at(tmp_path), Plan(BLOCK, BLOCK)) == {0}
    assert json.loads(store.at("key.json").read_text())["facts"] == {"seed": 1}


def test_a_folder_is_no_part(tmp_path: Path) -> None:
    (tmp_path / "sealed").mkdir()
    with pytest.raises(CoreInferError, match=r"^cannot read .*sealed: Is a directory; remove it, and run this again"):
        open_sealed(tmp_path / "sealed", "key")


def test_a_cache_stays_within_its_bound(tmp_path: Path) -> None:
    for number in range(4):
        store = open_store(tmp_path / f"embed-{number}", {"seed": number}, lambda line: None, shared=False)
        store.at("0000000.npy").write_bytes(bytes(1000))
        os.utime(store.at("key.json"), (number, number))
    tidy(tmp_path, 2 * sum(file.stat().st_size for file in store.folder.iterdir()))
    assert sorted(os.listdir(tmp_path)) == ["embed-2", "embed-3"]
    with used(tmp_path / "embed-2"):
        tidy(tmp_path, 1)
    tidy(tmp_path, 1, mine=[tmp_path / "embed-2"])
    assert sorted(os.listdir(tmp_path)) == ["embed-2", "embed-3"]
    tidy(tmp_path, 1)
    assert os.listdir(tmp_path) == ["embed-3"]


def test_scratch_of_a_machine_that_works_for_days_stays(tmp_path: Path) -> None:
    with scratch(tmp_path) as mine:
        (left := tmp_path / ".scratch.killed").mkdir()
        for folder in (mine, left):
            os.utime(folder, (0, 0))
        with scratch(tmp_path) as other:
            assert sorted(tmp_path.glob(".scratch.*")) == sorted([mine, other])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]", '{"facts": 5}'])
def test_a_key_that_says_nothing_leaves_it_to_the_merge(text: str, tmp_path: Path) -> None:
    (tmp_path / "embed").mkdir()
    (tmp_path / "embed" / "key.json").write_text(text)
    assert begun_with(tmp_path / "embed") is None
    look(tmp_path)
