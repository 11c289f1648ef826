"""Bad input of online verbs: exit code 2, one line with the value and the remedy, nothing left behind."""

from pathlib import Path
from typing import Any

import pytest
from conftest import run_cli, tree
from refusing import refused

LONG = "One more word for a prompt that is too long to fit. " * 60
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
