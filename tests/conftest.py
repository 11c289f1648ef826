"""Shared by the end-to-end tests: a small real artifact, built once, and the command line run in this process."""

import gc
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: as the command line does
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything, torch too, imports Triton

import families
import pytest
from small_models import save_bert, save_llama
from transformers import AutoTokenizer

import cli
from coreinfer import Engine, embedder, identity
from coreinfer.identity import tokenizer_facts
from coreinfer.paths import DEMO_PASSAGES
from coreinfer.threads import running_on
from pipeline.build import build_clusters
from pipeline.settings import BuildSettings
from pipeline.sources import SourceSettings

ROOT = Path(__file__).resolve().parent.parent
CLUSTERS = 6
LONG = ("test_fuzzing", "test_memory", "test_repeat", "test_decode_kernels", "test_evaluate_run", "test_cli_ends")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long begin first, so that no worker is left with one of them at the end."""
    items.sort(key=lambda item: item.path.stem not in LONG)


@dataclass(frozen=True)
class Result:
    """How a run of the command line ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.split("\n") if line]


def run_cli(*arguments: object, stdin: str | bytes = "") -> Result:
    """``coreinfer ARGUMENTS < stdin`` without a new process."""
    out, err = io.StringIO(), io.StringIO()
    raw = stdin.encode() if isinstance(stdin, str) else stdin
    code: Any = 0
    with (
        mock.patch.object(sys, "argv", ["coreinfer", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), "utf-8")),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
    gc.collect()  # models lie in reference cycles: hundreds of runs would fill the memory
    return Result(int(code or 0), out.getvalue(), err.getvalue())


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too, and its sha256."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def demo_texts(count: int, letters: int) -> list[str]:
    """The first texts of the demo passages, cut short; ten to a topic."""
    with DEMO_PASSAGES.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"][:letters] for line, _ in zip(lines, range(count), strict=False)]


def write_corpus(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return path


@pytest.fixture(autouse=True, scope="session")
def few_threads() -> Iterator[None]:
    """Small products on several threads wait for each other beside any other busy process."""
    with running_on(1):
        yield


@pytest.fixture(autouse=True, scope="session")
def known_tokenizers() -> Iterator[None]:
    """Trying out a vocabulary takes half of a short run: of equal tokenizers, one is tried."""
    known = dict[tuple[str, str], list[Any]]()

    def remembered(tokenizer: Any) -> list[Any]:
        key = tokenizer.backend_tokenizer.to_str(), repr((type(tokenizer), tokenizer.init_kwargs))
        if key not in known:
            known[key] = tokenizer_facts(tokenizer)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        for module in (identity, embedder):
            patch.setattr(module, "tokenizer_facts", remembered)
        yield


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache is left alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COREINFER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def new_cache(own_cache: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test begins with an empty one: what another built is not reused."""
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("COREINFER_CACHE", str(place))
    return place


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 passages on 6 topics."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "passages.jsonl", demo_texts(60, 300))


@pytest.fixture(scope="session")
def settings(corpus: Path) -> BuildSettings:
    """What the artifact is built with."""
    return BuildSettings(SourceSettings(str(corpus)), clusters=CLUSTERS)


@pytest.fixture(scope="session")
def artifact(settings: BuildSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real pipeline's artifact of the corpus, the demo language model and the real embedder. Only read it."""
    place = tmp_path_factory.mktemp("artifacts") / "small"
    build_clusters(settings, place)
    gc.collect()
    gc.freeze()  # what is imported by now need not be looked at after every run
    return place


@pytest.fixture(scope="session")
def engine(artifact: Path) -> Engine:
    """That artifact, opened in float32."""
    return Engine.load(artifact, dtype="float32")


@pytest.fixture(scope="session")
def shop(artifact: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of things that are wrong, beside two that are right: small.jsonl and good, an artifact."""
    at = tmp_path_factory.mktemp("shop")
    write_corpus(at / "small.jsonl", demo_texts(20, 100))
    files = {
        "empty.jsonl": b"", "empty.txt": b"\n\n", "number.jsonl": b'{"a": 1}\n', "broken.jsonl": b'{"text": "un\n',
        "several.jsonl": b'{"first": "some words here", "second": "other words there"}\n',
        "bytes.txt": b"\xfa broken \x80\x81" * 9,
        "wide.jsonl": '{"text": "words"}\n'.encode("utf-16"), "nothing.jsonl": b'{"text": null}\n{"text": ""}\n',
        "few.txt": b"One passage that is long enough.\n\nAnother passage that is long enough.\n",
        "picture.bin": b"\x00", "blank.txt": b" \n\n", "latin.txt": "na\xefve".encode("latin-1"),
        "prompts.jsonl": b'{"title": "no prompt here"}\n', "numbers.jsonl": b'{"prompt": 5}\n',
        "surrogate.jsonl": b'{"prompt": "\\ud83d"}\n',
    }  # fmt: skip
    for name, content in files.items():
        (at / name).write_bytes(content)
    shutil.copytree(artifact, at / "good")

    def damaged(name: str, damage: Callable[[Path], Any]) -> None:
        damage(shutil.copytree(artifact, at / name))

    def rewrite(old: str, new: str) -> Callable[[Path], Any]:
        return lambda folder: (folder / "manifest.json").write_text(
            (folder / "manifest.json").read_text("utf-8").replace(old, new, 1), "utf-8"
        )

    def flip(folder: Path) -> None:
        raw = bytearray((folder / "neurons.parquet").read_bytes())
        raw[len(raw) // 2] ^= 1
        (folder / "neurons.parquet").write_bytes(raw)

    damaged("older", rewrite('"version": 1', '"version": 99'))
    damaged("changed", flip)
    damaged("missing", lambda folder: (folder / "layers.parquet").unlink())
    damaged("cut", lambda folder: os.truncate(folder / "clusters.parquet", 999))
    damaged("unlisted", lambda folder: (folder / "manifest.json").unlink())
    damaged("garbled", rewrite("{", "{{"))
    save_llama(at / "llama", layers=2, width=48, context=64)
    AutoTokenizer.from_pretrained(at / "llama").save_pretrained(at / "mixed")
    families.build("Llama").save_pretrained(at / "mixed")
    save_bert(at / "bert")
    return at
