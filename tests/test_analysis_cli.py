"""``coreinfer analyze`` as typed: on the shipped passages, on a tiny model, and with input that is no good."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import demo_texts, run_cli, write_corpus
from numpy.typing import NDArray
from small_models import save_llama
from transformers import AutoTokenizer

from coreinfer.evaluate.plan import Text
from coreinfer.paths import DEMO_LM, DEMO_PASSAGES
from pipeline.analysis.plan import Plan
from pipeline.analysis.run import _meanings
from pipeline.analysis.texts import read_texts
from pipeline.sources import SourceSettings

FILES = {"analysis.json", "report.html"} | {
    f"{name}.{kind}" for name in ("quality", "tokens", "stability", "similarity") for kind in ("png", "svg")
}
SMALL = ("--prompt-tokens", 10, "--continuation-tokens", 14, "--limit", 5)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("models") / "tiny", layers=2, width=48, context=64)


def test_the_shipped_passages(tmp_path: Path) -> None:
    """The demo model; JSON on stdout is what lies in the folder."""
    made = run_cli("analyze", DEMO_PASSAGES, *SMALL, "--json", "--quiet", "-o", tmp_path / "deep" / "out")
    assert (made.code, made.err) == (0, "")
    (row,) = made.rows
    assert row == json.loads((tmp_path / "deep" / "out" / "analysis.json").read_text())
    assert {path.name for path in (tmp_path / "deep" / "out").iterdir()} == FILES
    assert (row["texts"], row["seen"], row["layers"], row["width"], row["length"]) == (5, 320, 6, 2560, 24)
    assert [c["alpha"] for c in row["against_alpha"]] == [0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8]
    rises = {c["keep"]: c["nll_rise"]["mean"] for c in row["against_keep"]}
    assert rises[0.05] > rises[0.8] + 0.5
    assert 0.3 < row["apart"]["mean"] < row["near"][0]["overlap"]["mean"] < 0.6
    shares = [u["share"]["mean"] for u in row["used"]]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(0.4, abs=0.01)
    last = [s for s in row["stability"] if (s["statistic"], s["prompt_tokens"], s["more_tokens"]) == ("count", 256, 8)]
    assert last[0]["paper"] == 0.97
    assert last[0]["overlap"]["mean"] > 0.9
    page = (tmp_path / "deep" / "out" / "report.html").read_text("utf-8")
    assert page.count("<svg") == 4
    assert "arXiv 2410.18311" in page
    assert "src=" not in page


def test_a_table_for_people_on_another_model(tiny: Path, tmp_path: Path) -> None:
    texts = write_corpus(tmp_path / "texts.jsonl", [*demo_texts(30, 300)[::6], "too short for it, by far"])
    made = run_cli("analyze", texts, "--model", tiny, *SMALL, "--alpha", 0.25, "--beta", 0.5, "--dtype", "float32")
    assert made.code == 0, made.err
    assert "1 of 6 texts are shorter than 24 tokens: left out" in made.err
    assert "5 texts, " in made.out
    for words in ("tokens apart", "0.25", "by lot", "Spearman", "of the paper's 7 values are met", "No text has the"):
        assert words in made.out
    assert not [line for line in made.out.splitlines() if len(line) > 200]


def test_a_seed_decides_and_nothing_else(tiny: Path) -> None:
    arguments = ("analyze", DEMO_PASSAGES, "--model", tiny, *SMALL, "--json", "--dtype", "float32")
    first, again, other = (run_cli(*arguments, "--seed", seed).rows[0] for seed in (0, 0, 1))
    for row in (first, again, other):
        del row["machine"]
    assert first == again
    assert first["apart"]["mean"] != other["apart"]["mean"]  # other neighbours
    assert first["near"][0]["overlap"]["mean"] == pytest.approx(other["near"][0]["overlap"]["mean"], abs=1e-5)


def test_texts_are_spread_over_the_dataset_and_shuffled() -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_LM)
    found = read_texts(SourceSettings(str(DEMO_PASSAGES)), Plan(), tokenizer, 300, 20)
    lines = [int(text.name.rpartition(":")[2]) for text in found.texts]
    assert np.diff(sorted(lines)).max() <= 18
    assert lines != sorted(lines)
    assert {len(text.ids) for text in found.texts} <= set(range(192, 301))
    assert max(len(text.ids) for text in found.texts) == 300


def test_meanings_are_those_of_the_tokens_that_the_sets_are_of() -> None:
    tokenizer, plan = AutoTokenizer.from_pretrained(DEMO_LM), Plan(prompt_tokens=8, continuation_tokens=4)
    ids = [np.asarray(tokenizer(text)["input_ids"], np.int32) for text in demo_texts(2, 300)]
    read: list[str] = []

    class Reader:
        def embed(self, texts: list[str]) -> NDArray[np.float32]:
            read.extend(texts)
            return np.eye(len(texts), dtype=np.float32)

    blank = np.zeros(12, np.int32)  # only beginnings of text
    texts = [Text("", row) for row in (*ids, blank)]
    assert _meanings(tokenizer, Reader(), texts, plan.length).tolist() == np.eye(3).tolist()  # type: ignore[arg-type]
    assert read == [tokenizer.decode(row[1:12].tolist()) for row in ids] + ["?"]


BAD: list[tuple[str, tuple[str, ...]]] = [
    ("--alpha 0", ("--alpha", "0", "give a share")),
    ("--alpha 1.5", ("--alpha", "1.5", "give a share")),
    ("--beta nan", ("--keep (beta)", "nan", "give a share")),
    ("--keep 0", ("--keep (beta)", "0", "give a share")),
    ("--limit 3", ("--limit is 3", "at least 4")),
    ("--prompt-tokens 0", ("--prompt-tokens is 0", "at least 1")),
    ("--continuation-tokens 1", ("--continuation-tokens is 1", "at least 2")),
    ("--seed -1", ("--seed is -1",)),
    ("--dtype half", ("--dtype is 'half'", "bfloat16")),
    ("--device gpu", ("device", "'gpu'", "cpu")),
    ("--model {tiny}", ("192 tokens", "context holds 64", "lower one")),
    ("--model {tmp}/nowhere", ("language model", "nowhere")),
    ("--embedder {tmp}/nowhere --prompt-tokens 8 --continuation-tokens 8", ("embedder", "nowhere")),
    ("--text-column body", ("'body'", "'text'", "--text-column")),
    ("--output {tmp}/few.jsonl", ("few.jsonl", "choose another --output")),
]


@pytest.mark.parametrize(("arguments", "words"), BAD)
def test_bad_input_is_one_line(arguments: str, words: tuple[str, ...], tiny: Path, tmp_path: Path) -> None:
    texts = write_corpus(tmp_path / "few.jsonl", demo_texts(5, 200))
    made = run_cli("analyze", texts, *arguments.format(tiny=tiny, tmp=tmp_path).split())
    assert (made.code, made.out) == (2, "")
    assert made.err.startswith("error: ")
    assert len(made.err.splitlines()) == 1
    for word in words:
        assert word in made.err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("short.jsonl", ("3 of 5 texts", "short.jsonl", "24 tokens", "at least 4 must", "lower --prompt-tokens")),
        ("nowhere.jsonl", ("no such file", "nowhere.jsonl")),
        ("empty.jsonl", ("empty.jsonl", "is empty")),
    ],
)
def test_unusable_texts_are_refused_with_the_numbers(
    name: str, words: tuple[str, ...], tiny: Path, tmp_path: Path
) -> None:
    write_corpus(tmp_path / "short.jsonl", [*demo_texts(3, 300), "short one", "short two"])
    (tmp_path / "empty.jsonl").write_text("")
    made = run_cli("analyze", tmp_path / name, "--model", tiny, *SMALL)
    assert made.code == 2
    assert len(made.err.splitlines()) == 1, made.err
    for word in words:
        assert word in made.err
