"""adapt as a user types it: the model it leaves, what it says, what it refuses."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from adapting import CONTEXT, LAYERS
from adapting import place as place
from conftest import run_cli
from transformers import AutoModelForCausalLM, AutoTokenizer


def test_the_command(place: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    corpus, sizes = place / "corpus.jsonl", ["--steps", 2, "--batch", 2, "--micro", 1, "--limit", 24]
    options = [corpus, "--model", place / "llama", *sizes, "--context", CONTEXT, "--output", output]
    bert = ["--embedder", place / "bert"]
    done = run_cli("adapt", *options, *bert, "--json")
    assert done.code == 0, done.err
    assert "step 2 of 2: train" in done.err
    assert [report["step"] for report in done.rows[0]["reports"]] == [0, 2]
    card = (output / "README.md").read_text("utf-8")
    assert "`llama`, adapted" in card
    assert "`corpus.jsonl`" in card
    assert str(place) not in card
    model, tokenizer = AutoModelForCausalLM.from_pretrained(output), AutoTokenizer.from_pretrained(output)
    assert model.config.num_hidden_layers == LAYERS
    assert model(input_ids=torch.tensor([tokenizer("a table")["input_ids"]])).logits.isfinite().all()
    clusters = run_cli(
        "build-clusters", corpus, "--model", output, "--output", tmp_path / "clusters",
        "--clusters", 2, "--passage-tokens", CONTEXT, "--limit", 12, *bert, "--quiet",
    )  # fmt: skip
    assert clusters.code == 0, clusters.err
    again = run_cli("adapt", *options)
    assert (again.code, again.out) == (2, "")
    assert "exists already" in again.err
    shutil.rmtree(output)
    taken = run_cli("adapt", *options, "--artifact", tmp_path / "clusters", "--quiet")
    assert (taken.code, taken.err, taken.out) == (0, "", "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--keep-most", "1.5"], "keep is 1.5"),
        (["--context", "100000"], "has a context of 64"),
        (["--model", "no/such"], "there is no language model 'no/such'"),
        (["--limit", "1"], "give more text"),
        (["--held-out", "none.jsonl"], "none.jsonl"),
    ],
)
def test_bad_input_is_one_line(place: Path, tmp_path: Path, options: list[str], words: str) -> None:
    given: list[Any] = [] if "--model" in options else ["--model", place / "llama"]
    found = run_cli("adapt", place / "corpus.jsonl", *given, "--output", tmp_path / "out", *options, "--quiet")
    assert (found.code, found.out) == (2, "")
    assert words in found.err
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
