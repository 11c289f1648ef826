"""Bad input of a build: exit code 2, one line with the value and the remedy, nothing left behind and nothing harmed."""

import errno
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Result, run_cli, tree
from refusing import refused


class NoSpace(OSError):
    """What the operating system says of a full disk."""

    def __init__(self) -> None:
        super().__init__(errno.ENOSPC, "No space left on device")


BUILD: list[tuple[str, tuple[str, ...]]] = [
    ("{shop}/empty.jsonl", ("empty.jsonl", "is empty")),
    ("{shop}/empty.txt", ("empty.txt", "is empty")),
    ("{shop}/number.jsonl", ("number.jsonl", "'a' holds integers")),
    ("{shop}/several.jsonl", ("'first', 'second'", "--text-column")),
    ("{shop}/small.jsonl --text-column body", ("'body'", "'text'")),
    ("{shop}/broken.jsonl", ("broken.jsonl:1",)),
    ("{shop}/bytes.txt", ("bytes.txt is not UTF-8 in 1 of its 1 record,", "line 1", "--max-bad-shards 1")),
    ("{shop}/nothing.jsonl", ("nothing.jsonl", "1 empty", "1 null")),
    ("{shop}/small.jsonl --min-chars 500", ("20 too short", "lower --min-chars from 500")),
    ("{shop}/small.jsonl --min-chars -1", ("--min-chars", "-1")),
    ("{shop}/picture.bin", ("picture.bin", ".parquet")),
    ("{shop}/nowhere.jsonl", ("nowhere.jsonl",)),
    ("nobody/no-such-data", ("nobody/no-such-data", "network")),
    ("{shop}/few.txt --clusters 5", ("2 passages", "5 clusters")),
    ("{shop}/small.jsonl --clusters 20", ("19 passages", "20 clusters")),
    ("{shop}/small.jsonl --clusters 0", ("--clusters", "'0'")),
    ("{shop}/small.jsonl --clusters -3", ("--clusters", "'-3'")),
    ("{shop}/small.jsonl --clusters abc", ("--clusters", "'abc'")),
    *((f"{{shop}}/small.jsonl --keep {keep}", ("--keep", keep)) for keep in ("0", "-1", "1.5", "nan")),
    ("{shop}/small.jsonl --keep most", ("--keep", "'most'")),
    ("{shop}/small.jsonl --statistic nonsense", ("--statistic", "'nonsense'", "energy, count")),
    ("{shop}/small.jsonl --statistic count --mode nonsense", ("--mode", "'nonsense'", "magnitude")),
    ("{shop}/small.jsonl --statistic count --token-fraction 7", ("--token-fraction", "7")),
    ("{shop}/small.jsonl --dtype nonsense", ("--dtype", "'nonsense'", "bfloat16")),
    ("{shop}/small.jsonl --device gpu", ("device", "'gpu'", "cpu")),
    ("{shop}/small.jsonl --limit 0", ("--limit", "0")),
    ("{shop}/small.jsonl --limit many", ("--limit", "'many'")),
    ("{shop}/small.jsonl --passage-tokens 4000", ("--passage-tokens is 4000", "'demo'", "give at most 512")),
    ("{shop}/small.jsonl --model {shop}/llama", ("--passage-tokens is 384", "llama", "give at most 64")),
    ("{shop}/small.jsonl --passage-tokens 0", ("--passage-tokens", "0")),
    ("{shop}/small.jsonl --examples -1", ("--examples", "-1")),
    ("{shop}/small.jsonl --seed -1", ("--seed", "-1")),
    ("{shop}/small.jsonl --seed 9999999999", ("--seed", "9999999999")),
    ("{shop}/small.jsonl --split train", ("'train'",)),
    ("{shop}/small.jsonl --model {shop}/nowhere", ("language model", "nowhere")),
    ("{shop}/small.jsonl --model {shop}/bert", ("bert",)),
    ("{shop}/small.jsonl --model {shop}/mixed", ("mixed", "tokenizer knows 8192 tokens", "96")),
    ("{shop}/small.jsonl --embedder {shop}/nowhere", ("embedder", "nowhere")),
    ("{shop}/small.jsonl --embedder {shop}", ("embedder", "shop")),
    ("{shop}/small.jsonl --colour", ("--colour", "--help")),
    ("", ("DATASET", "--help")),
    ("{shop}/wide.jsonl", ("wide.jsonl is UTF-16", "convert it to UTF-8")),
]  # fmt: skip


@pytest.mark.parametrize(("line", "words"), BUILD, ids=lambda part: part if isinstance(part, str) else "")
def test_build(shop: Path, artifact: Path, tmp_path: Path, line: str, words: tuple[str, ...]) -> None:
    """Over an existing artifact, which stays as it was, and, where that is quick, into a folder yet to be made."""
    shutil.copytree(artifact, tmp_path / "made")
    before = tree(tmp_path)
    arguments = line.format(shop=shop).split()
    refused(run_cli("build-clusters", *arguments, "-o", tmp_path / "made", "--overwrite"), *words)
    assert tree(tmp_path) == before
    refused(run_cli("build-clusters", *arguments, "-o", tmp_path / "not" / "yet"), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_output(shop: Path, tmp_path: Path) -> None:
    """A place that cannot become an artifact, or must not."""
    good, text = shop / "small.jsonl", shop / "few.txt"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    cases: list[tuple[tuple[object, ...], str]] = [
        ((shop / "good",), "--overwrite"), ((text / "made",), "few.txt is a file"), ((text, "--overwrite"), "few.txt"),
        ((tmp_path / "mine", "--overwrite"), "no artifact"), ((tmp_path / ("x" * 300),), "xxx"),
    ]  # fmt: skip
    before = tree(shop) | tree(tmp_path)
    for arguments, word in cases:
        refused(run_cli("build-clusters", good, "-c", 2, "-o", *arguments), word)
    assert tree(shop) | tree(tmp_path) == before


STAGES = (
    "corpus.load_model", "corpus.Embedder", "corpus.write_passages", "corpus.hold_out", "shards.careful.embed_texts",
    "stages.candidates", "shards.tasks.record_texts", "build.sample_texts",
)  # fmt: skip
WRITERS = (
    "index.write_neurons", "index.write_clusters", "index.write_layers", "index.write_sensitivity",
    "index.write_calibration", "index.write_index", "index.write_manifest",
)  # fmt: skip
ENDS = [
    (stage, fault, bool((number + turn) % 2))
    for number, stage in enumerate((*STAGES, *WRITERS)) for turn, fault in enumerate((KeyboardInterrupt, NoSpace))
]  # fmt: skip


@pytest.mark.parametrize(("stage", "fault", "over"), ENDS)
def test_build_ends_early(
    shop: Path, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str,
    fault: type[BaseException], over: bool,
) -> None:  # fmt: skip
    """Ctrl-C and a full disk in every stage, of one over an artifact, of the other into a folder yet to be made."""

    def fail(*_: Any, **__: Any) -> None:
        raise fault  # a fresh one each time: its traceback holds the models

    monkeypatch.setattr(f"pipeline.{stage}", fail)
    shutil.copytree(artifact, tmp_path / "made")
    before = tree(tmp_path)
    models = ("--model", shop / "llama", "--embedder", shop / "bert")
    common = ("build-clusters", shop / "small.jsonl", *models, "-c", 2, "--limit", 8, "--passage-tokens", 16, "-q")
    output = (tmp_path / "made", "--overwrite") if over else (tmp_path / "not" / "yet",)
    ended(run_cli(*common, "-o", *output), fault)
    assert tree(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def ended(result: Result, fault: type[BaseException]) -> None:
    if fault is NoSpace:
        refused(result, "No space left", "free some space")
    else:
        assert (result.code, result.err) == (130, "interrupted\n")


def test_rows_on_a_full_disk(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise NoSpace

    (tmp_path / "rows.jsonl").write_text("precious")
    monkeypatch.setattr("os.replace", fail)
    result = run_cli("predict", "-a", artifact, "words", "-p", "similarity", "-o", tmp_path / "rows.jsonl")
    refused(result, "rows.jsonl", "No space left")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"rows.jsonl": "precious"}


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """The operating system refuses to let any file of this process grow over so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("cache", "place"), [([], "{cache}/builds/embed-"), (["--no-cache"], "{output}")])
def test_real_limit_on_file_size(shop: Path, new_cache: Path, tmp_path: Path, cache: list[str], place: str) -> None:
    """No patching: the embeddings' file is refused."""
    output = tmp_path / "made"
    with no_file_beyond(16_384):
        result = run_cli("build-clusters", shop / "small.jsonl", "-c", 2, "-q", "-o", output, *cache)
    refused(result, "cannot write " + place.format(cache=new_cache, output=output), "File too large")
    assert list(tmp_path.iterdir()) == []
