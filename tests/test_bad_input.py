"""Bad input: exit code 2, one line with the value and the remedy, nothing left behind and nothing harmed."""

import errno
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Result, run_cli, tree

REMEDIES = (
    "add give choose check pass lower shorten rebuild make mend see end free name copy leave write replace".split()  # noqa: SIM905
)
READING = ("load models", "read passages", "hold out")
LONG = "One more word for a prompt that is too long to fit. " * 60


class NoSpace(OSError):
    """What the operating system says of a full disk."""

    def __init__(self) -> None:
        super().__init__(errno.ENOSPC, "No space left on device")


def refused(result: Result, *words: str) -> None:
    """Exit code 2 and one line, which names the fault and, after it, a remedy."""
    assert "Traceback" not in result.err
    assert result.code == 2, result
    *talk, error = result.err.splitlines()
    assert talk == list(READING[: len(talk)]), result.err  # what is found to be wrong while it is read
    assert error.startswith("error: ")
    assert result.err.endswith("\n")
    assert len(error) < 700
    for word in words:
        assert word in error
    assert any(remedy in error for remedy in REMEDIES), error


BUILD: list[tuple[str, tuple[str, ...]]] = [
    ("{shop}/empty.jsonl", ("empty.jsonl", "is empty")),
    ("{shop}/empty.txt", ("empty.txt", "is empty")),
    ("{shop}/number.jsonl", ("number.jsonl", "'a' holds integers")),
    ("{shop}/several.jsonl", ("'first', 'second'", "--text-column")),
    ("{shop}/small.jsonl --text-column body", ("'body'", "'text'")),
    ("{shop}/broken.jsonl", ("broken.jsonl:1",)),
    ("{shop}/bytes.txt", ("bytes.txt", "1 undecodable")),
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
    ("", ("dataset", "--help")),
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


ONLINE: list[tuple[str, tuple[str, ...]]] = [
    *((f"{verb} words -a {{shop}}/older", ("99", "version 1", "rebuild")) for verb in ("predict", "generate")),
    ("inspect {shop}/changed", ("neurons.parquet", "sha256")),
    ("predict words -a {shop}/changed", ("neurons.parquet", "sha256")),
    ("inspect {shop}/missing", ("layers.parquet is missing",)),
    ("generate words -a {shop}/cut", ("clusters.parquet",)),
    ("inspect {shop}/unlisted", ("manifest.json", "build-clusters")),
    ("evaluate {shop}/small.jsonl -a {shop}/garbled", ("manifest.json", "rebuild")),
    ("predict words -a {shop}/nowhere", ("nowhere", "build-clusters")),
    *((f"{verb} words -a {{shop}}/good -m {{shop}}/llama -p stability", ("'demo'", "llama", "2 of 48"))
      for verb in ("predict", "generate")),
    *((f"{verb} words -a {{shop}}/good --embedder {{shop}}/bert", ("all-MiniLM-L6-v2", "bert"))
      for verb in ("predict", "generate")),
    ("predict words -a {shop}/good -m {shop}/nowhere -p stability", ("nowhere",)),
    *((f"{verb} words -a {{shop}}/good --keep {keep}", ("--keep", keep))
      for verb in ("predict", "generate") for keep in ("0", "-1", "1.5", "nan")),
    ("evaluate {shop}/small.jsonl -a {shop}/good --keep 2", ("keep", "2")),
    *((f"{verb} words -a {{shop}}/good --policy nonsense", ("'nonsense'", "similarity"))
      for verb in ("predict", "generate")),
    ("predict words -a {shop}/good --dtype nonsense -p similarity", ("'nonsense'", "float32")),
    ("predict words -a {shop}/good --device gpu", ("'gpu'", "cpu")),
    ("generate words -a {shop}/good --device cpu:x", ("'cpu:x'",)),
    ("generate words -a {shop}/good --max-new-tokens 0", ("--max-new-tokens", "0", "at least 1")),
    ("generate words -a {shop}/good --max-new-tokens -5", ("--max-new-tokens", "-5")),
    ("generate words -a {shop}/good --temperature -1", ("--temperature", "-1")),
    ("generate words -a {shop}/good --temperature nan", ("--temperature", "nan")),
    ("generate words -a {shop}/good --seed -1", ("--seed", "-1")),
    ("predict words -a {shop}/good --with-neurons", ("--with-neurons", "--json")),
    ("predict words -a {shop}/good -o {shop}/rows.txt", ("rows.txt", ".jsonl or .parquet")),
    ("predict words -a {shop}/good -o {shop}/nowhere/rows.jsonl", ("nowhere/rows.jsonl",)),
    ("predict words -a {shop}/good -o {shop}/few.txt/rows.jsonl", ("few.txt/rows.jsonl",)),
    ("predict -a {shop}/good -f {shop}/nowhere.txt", ("nowhere.txt",)),
    ("predict -a {shop}/good -f {shop}", ("shop",)),
    ("predict -a {shop}/good -f {shop}/blank.txt", ("blank.txt", "no prompt")),
    ("predict -a {shop}/good -f {shop}/latin.txt", ("latin.txt", "UTF-8")),
    ("predict -a {shop}/good -f {shop}/prompts.jsonl", ("prompts.jsonl line 1", "`prompt`")),
    ("predict -a {shop}/good -f {shop}/numbers.jsonl", ("numbers.jsonl line 1", "`prompt`")),
    ("predict -a {shop}/good -f {shop}/surrogate.jsonl", ("UTF-8",)),
    ("predict words -a {shop}/good -f {shop}/few.txt", ("few.txt", "leave out")),
    ("predict -a {shop}/good", ("stdin", "prompt")),
    ("inspect {shop}/good --top -1", ("--top", "-1")),
    ("inspect {shop}/good --map {shop}/x.gif", ("x.gif", ".png or .svg")),
    ("inspect {shop}/good --map {shop}/nowhere/x.png", ("nowhere/x.png",)),
    ("evaluate {shop}/small.jsonl -a {shop}/good", ("192 tokens", "--prompt-tokens")),
    ("evaluate {shop}/small.jsonl -a {shop}/good --limit 0", ("--limit", "0")),
    ("evaluate {shop}/small.jsonl -a {shop}/good --prompt-tokens 0", ("--prompt-tokens", "0")),
    ("evaluate {shop}/small.jsonl -a {shop}/good --continuation-tokens 600", ("664", "512")),
    *((f"{verb} --colour", ("--colour", "--help")) for verb in ("predict", "generate", "inspect", "evaluate")),
    ("frobnicate", ("frobnicate", "--help")),
]  # fmt: skip


@pytest.mark.parametrize(("line", "words"), ONLINE, ids=lambda part: part if isinstance(part, str) else "")
def test_online(shop: Path, line: str, words: tuple[str, ...]) -> None:
    before = tree(shop)
    result = run_cli(*line.format(shop=shop).split())
    refused(result, *words)
    assert result.out == ""
    assert tree(shop) == before


@pytest.mark.parametrize("verb", ["predict", "generate"])
@pytest.mark.parametrize(("prompt", "words"), [("", ("empty", "''")), (" \n", ("empty",)), (LONG, ("tokens", "512"))])
def test_prompt(artifact: Path, verb: str, prompt: str, words: tuple[str, ...]) -> None:
    refused(run_cli(verb, "-a", artifact, "-p", "stability", prompt), *words)


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
    "corpus.load_model", "corpus.Embedder", "corpus.write_passages", "corpus.hold_out", "shards.tasks.embed_texts",
    "stages.candidates", "shards.tasks.record_texts", "build.sample_texts",
)  # fmt: skip
WRITERS = (
    "index.write_neurons", "index.write_clusters", "index.write_layers", "index.write_sensitivity",
    "index.write_calibration", "index.write_index", "index.write_manifest",
)  # fmt: skip


@pytest.mark.parametrize("fault", [KeyboardInterrupt, NoSpace])
@pytest.mark.parametrize("stage", [*STAGES, *WRITERS])
def test_build_ends_early(
    shop: Path, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, fault: type[BaseException]
) -> None:
    """Ctrl-C and a full disk in every stage."""

    def fail(*_: Any, **__: Any) -> None:
        raise fault  # a fresh one each time: its traceback holds the models

    monkeypatch.setattr(f"pipeline.{stage}", fail)
    shutil.copytree(artifact, tmp_path / "made")
    before = tree(tmp_path)
    models = ("--model", shop / "llama", "--embedder", shop / "bert")
    common = ("build-clusters", shop / "small.jsonl", *models, "-c", 2, "--limit", 8, "--passage-tokens", 16, "-q")
    for output in ((tmp_path / "made", "--overwrite"), (tmp_path / "not" / "yet",)):
        ended(run_cli(*common, "-o", *output), fault)
        assert tree(tmp_path) == before
        assert [path.name for path in tmp_path.iterdir()] == ["made"]


def ended(result: Result, fault: type[BaseException]) -> None:
    if fault is NoSpace:
        refused(result, "No space left", "free some space")
    else:
        assert (result.code, result.err) == (130, "interrupted\n")


@pytest.mark.parametrize("verb", ["predict", "generate"])
@pytest.mark.parametrize(
    "where", ["coreinfer.opening.load_model", "coreinfer.engine.nearest", "coreinfer.planning.score"]
)
def test_interrupt_online(artifact: Path, monkeypatch: pytest.MonkeyPatch, verb: str, where: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, fail)
    before = tree(artifact.parent)
    result = run_cli(verb, "-a", artifact, "-p", "hybrid", "some words")
    assert (result.code, result.err, result.out.strip()) == (130, "interrupted\n", "")
    assert tree(artifact.parent) == before


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
