"""predict, generate and inspect as a user types them: data on stdout, talk on stderr, and what each says."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import PROMPTS, fine
from conftest import CLUSTERS, run_cli

from coreinfer.output import beyond_the_curve

KEYS = [
    "prompt",
    "policy",
    "source",
    "cluster",
    "similarity",
    "threshold",
    "reason",
    "worth",
    "keep",
    "neurons_per_layer",
]


def test_predict_by_argument(artifact: Path) -> None:
    result = fine(run_cli("predict", "-a", artifact, *PROMPTS, "--json"))
    assert [row["prompt"] for row in result.rows] == list(PROMPTS)
    for row in result.rows:
        assert list(row) == KEYS
        assert (row["policy"], row["keep"], len(row["neurons_per_layer"])) == ("auto", 0.4, 6)
        assert row["source"] in ("hybrid", "stability")
        assert 0 <= row["cluster"] < CLUSTERS
        assert (row["similarity"] >= row["threshold"]) == (row["source"] == "hybrid")
        assert f"{row['similarity']:.3f}" in row["reason"]
    assert result.err == ""


@pytest.mark.parametrize("way", ["stdin", "txt", "jsonl"])
def test_predict_from_lines(artifact: Path, tmp_path: Path, way: str) -> None:
    lines = "\n\n".join(PROMPTS) + "\n"  # blank lines are no prompts
    if way == "jsonl":
        lines = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS)
    file = tmp_path / f"prompts.{way}"
    file.write_text(lines, "utf-8-sig")
    given = ("--file", file) if way != "stdin" else ()
    result = fine(run_cli("predict", "-a", artifact, "-p", "similarity", "--json", *given, stdin=lines))
    assert [row["prompt"] for row in result.rows] == list(PROMPTS)


def test_predict_turns_from_jsonl(artifact: Path, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "What is\u2028a cell?"}, {"role": "assistant", "content": "Small."}]
    file = tmp_path / "chats.jsonl"
    file.write_text(json.dumps({"prompt": turns}, ensure_ascii=False) + "\n", "utf-8")
    assert fine(run_cli("predict", "-a", artifact, "-f", file, "--json")).rows[0]["prompt"] == turns
    assert "What is a cell? Small." in fine(run_cli("predict", "-a", artifact, "-f", file)).out


@pytest.mark.parametrize("verb", ["predict", "generate"])
def test_a_prompt_that_is_a_file_is_text_and_that_is_said(artifact: Path, tmp_path: Path, verb: str) -> None:
    (file := tmp_path / "my notes.txt").write_text(PROMPTS[0], "utf-8")
    common = (verb, "-a", artifact, "-p", "similarity", "--json", *(("-n", 1) if verb == "generate" else ()))
    result = fine(run_cli(*common, file, PROMPTS[1], tmp_path))  # a folder's content is no prompt anyway
    assert [row["prompt"] for row in result.rows] == [str(file), PROMPTS[1], str(tmp_path)]
    (said,) = (line for line in result.err.splitlines() if not line.startswith("  "))
    assert said.startswith(f"{str(file)!r} is a file, but is read as the prompt's text: give --file '{file}' for")
    assert fine(run_cli(*common, file, "-q")).err == ""
    assert "is a file" not in fine(run_cli(*common, "--file", file)).err


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_predict_into_a_file(artifact: Path, tmp_path: Path, name: str) -> None:
    common = ("predict", "-a", artifact, *PROMPTS, "-p", "similarity", "--keep", 0.2, "-o", tmp_path / name)
    result = fine(run_cli(*common, "--with-neurons"))
    assert result.out == ""
    assert f"2 predictions in {tmp_path / name}" in result.err
    text = tmp_path / name
    rows = [json.loads(line) for line in text.open()] if name.endswith("jsonl") else pq.read_table(text).to_pylist()
    assert [row["prompt"] for row in rows] == list(PROMPTS)
    for row in rows:
        assert list(row) == [*KEYS, "neurons"]
        assert [len(ids) for ids in row["neurons"]] == row["neurons_per_layer"] == [512] * 6
        assert all(ids == sorted(set(ids)) and ids[0] >= 0 and ids[-1] < 2560 for ids in row["neurons"])
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("policy", ["auto", "similarity", "stability", "hybrid", "dense"])
def test_predict_each_policy(artifact: Path, policy: str) -> None:
    row = fine(run_cli("predict", "-a", artifact, PROMPTS[0], "--policy", policy, "--keep", 0.25, "--json")).rows[0]
    assert row["policy"] == policy
    assert row["source"] == (policy if policy != "auto" else "hybrid")
    assert row["neurons_per_layer"] == [2560 if policy == "dense" else 640] * 6
    assert row["keep"] == (1.0 if policy == "dense" else 0.25)


def test_predict_for_people(artifact: Path) -> None:
    out = fine(run_cli("predict", "-a", artifact, PROMPTS[0])).out
    assert out.startswith(PROMPTS[0])
    for word in ("hybrid (match", "cluster ", "membrane", "6,144 neurons kept", "keep 0.4"):
        assert word in out


def test_what_a_loss_may_cost_needs_a_curve_and_no_keep(artifact: Path) -> None:
    for verb in ("predict", "generate"):
        both = run_cli(verb, "Hello there.", "-a", artifact, "--keep", "0.4", "--max-loss", "0.1")
        assert (both.code, both.err.count("\n")) == (2, 1)
        assert "--keep 0.4 and --max-loss 0.1" in both.err
    other = run_cli("predict", "Hello there.", "-a", artifact, "--max-loss", "0.1", "--policy", "stability")
    assert (other.code, "measured for auto: leave out --policy stability" in other.err) == (2, True)
    bare = run_cli("predict", "Hello there.", "-a", artifact, "--max-loss", "0.1")
    assert bare.code == 2
    assert "coreinfer calibrate" in bare.err


def test_a_loss_beyond_an_end_of_the_curve_is_said() -> None:
    """The shipped clusters': from 0.247 at keep 0.1 to 0.008 at keep 0.8."""
    lowest = "keep 0.1, the lowest that was measured, for an expected rise of 0.247; give --keep for less"
    none = "keep 1, all neurons, since no lower keep was measured to cost so little"
    for loss, keep, words in ((0.3, 0.1, lowest), (0, 1.0, none), (0.05, 0.2837, ""), (0.001, 0.9741, "")):
        common = ("predict", "Hello there.", "--max-loss", loss, "--json")
        made = fine(run_cli(*common))
        assert made.rows[0]["keep"] == keep
        assert made.err == (f"--max-loss {loss}: {words}\n" if words else "")
    assert fine(run_cli(*common[:3], 0.3, "--quiet")).err == ""


def test_an_end_of_a_curve_is_no_way_beyond_it() -> None:
    curve = [{"keep": 0.2, "rise": 0.1}, {"keep": 0.6, "rise": 0.3}, {"keep": 0.8, "rise": -0.01}]
    assert beyond_the_curve(curve, 0.3, 0.2) == beyond_the_curve(curve, 0.0, 0.8) == ""
    assert "keep 0.2, the lowest" in beyond_the_curve(curve, 0.31, 0.2)
    assert "for an expected rise of 0;" in beyond_the_curve(curve[2:], 0.01, 0.8)


def test_generate_streams_text_and_talks_beside_it(artifact: Path) -> None:
    common = ("generate", "-a", artifact, PROMPTS[0], "-n", 12)
    result = fine(run_cli(*common))
    for word in ("hybrid", "cluster ", "6,144 neurons kept", "tok/s"):
        assert word in result.err
        assert word not in result.out
    (row,) = fine(run_cli(*common, "--json")).rows
    assert list(row)[: len(KEYS)] == KEYS
    assert row["text"] + "\n" == result.out
    assert row["new_tokens"] == 12
    assert row["tokens_per_second"] > 0
    quiet = fine(run_cli(*common, "--quiet"))
    assert (quiet.out, quiet.err) == (result.out, "")


def test_generate_samples_by_seed(artifact: Path) -> None:
    common = ("generate", "-a", artifact, PROMPTS[0], "-n", 12, "--temperature", 1.5, "-q")
    texts = [fine(run_cli(*common, "--seed", seed)).out for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_generate_several_prompts(artifact: Path) -> None:
    rows = fine(run_cli("generate", "-a", artifact, "--json", "-n", 2, stdin="\n".join(PROMPTS))).rows
    assert [row["prompt"] for row in rows] == list(PROMPTS)
    talk = fine(run_cli("generate", "-a", artifact, "-n", 2, *PROMPTS)).err.splitlines()
    assert [line for line in talk if not line.startswith("  ")] == list(PROMPTS)
    assert "Every living" not in fine(run_cli("generate", "-a", artifact, "-n", 2, PROMPTS[0])).err


def test_generate_says_why_it_stopped(artifact: Path) -> None:
    long = "One more word for a prompt. " * 72  # 512 tokens are the context
    common = ("generate", "-a", artifact, "-p", "dense")
    (row,) = fine(run_cli(*common, long, "-n", 300, "--json")).rows
    assert row["stopped"] == "context"
    assert row["prompt_tokens"] + row["new_tokens"] == 512
    said = fine(run_cli(*common, long, "-n", 300)).err
    assert f"stopped after {row['new_tokens']} of 300 tokens: prompt and text fill the model's context of 512" in said
    (row,) = fine(run_cli(*common, PROMPTS[0], "-n", 3, "--json")).rows
    assert (row["stopped"], row["new_tokens"]) == ("length", 3)
    assert "stopped" not in fine(run_cli(*common, PROMPTS[0], "-n", 3)).err


def test_inspect(artifact: Path, tmp_path: Path) -> None:
    out = fine(run_cli("inspect", artifact, "--top", 2)).out
    for word in (
        f"{CLUSTERS} clusters of 57 passages",
        "model demo",
        "threshold",
        "share",
        "4 more: --top 0 shows all",
    ):
        assert word in " ".join(out.split())
    assert "more: --top" not in fine(run_cli("inspect", artifact, "--top", 0)).out
    (facts,) = fine(run_cli("inspect", artifact, "--json")).rows
    assert (facts["layers"], facts["width"], len(facts["clusters"])) == (6, 2560, CLUSTERS)
    assert 0.4 <= facts["overlap"]["least"] <= facts["overlap"]["mean"] <= facts["overlap"]["most"] <= 1
    drawn = fine(run_cli("inspect", artifact, "--map", tmp_path / "map.png", "--quiet"))
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert drawn.err == ""
    said = fine(run_cli("inspect", artifact, "--map", tmp_path / "map.svg")).err
    assert said == f"drawing {tmp_path / 'map.svg'}\nmap in {tmp_path / 'map.svg'}\n"
