"""Every verb as a user types it: data on stdout, talk on stderr, and what each says."""

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import CLUSTERS, ROOT, Result, demo_texts, run_cli, tree, write_corpus
from small_models import save_llama

from coreinfer import Artifact
from coreinfer.evaluate import LADDER
from coreinfer.output import built_in_lines

VERBS = ("build-clusters", "predict", "generate", "inspect", "evaluate")
KEYS = ["prompt", "policy", "source", "cluster", "similarity", "threshold", "reason", "keep", "neurons_per_layer"]
PROMPTS = ("Every living cell is wrapped in a membrane", "Question: how fast does a ball fall? Answer:")


def start(*arguments: object, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cli", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True, env=os.environ)


def fine(result: Result) -> Result:
    assert result.code == 0, result.err
    assert "Traceback" not in result.err
    return result


@pytest.mark.parametrize("verb", [(), *((verb,) for verb in VERBS)], ids=lambda verb: "-".join(verb) or "coreinfer")
def test_help_is_quick(verb: tuple[str, ...]) -> None:
    best = 9.0
    for _ in range(3):  # processor time, the best of three: other programs on the machine do not count
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = start(*verb, "--help")
        out, err = process.communicate()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert (process.returncode, err) == (0, "")
        assert "Usage: coreinfer" in out
    assert best < 0.3
    assert all(name in out for name in (VERBS if not verb else ("--help",)))


def test_without_a_verb_it_shows_its_help() -> None:
    assert "build-clusters" in fine(run_cli()).out


def test_build(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "some.jsonl", demo_texts(20, 120))
    common = ("build-clusters", corpus, "--output", tmp_path / "made", "--clusters", 2)
    told = fine(run_cli(*common, "--json", "--limit", 19, "--keep", 0.3, "--examples", 1))
    (row,) = told.rows
    assert (row["output"], row["clusters"], row["passages"]) == (str(tmp_path / "made"), 2, 19)
    assert row["tokens"] > 100
    assert set(row["seconds"]) >= {"load models", "read passages", "embed", "cluster", "record", "write"}
    assert 0 < row["threshold"] < 1
    assert "19 passages" in told.err
    assert "held out" not in told.err
    facts = fine(run_cli("inspect", tmp_path / "made", "--json")).rows[0]
    assert (facts["keep"], len(facts["clusters"][0]["examples"])) == (0.3, 1)
    again = fine(run_cli(*common, "--overwrite"))
    assert again.out == ""  # talk only
    assert f"next: coreinfer predict --artifact {tmp_path / 'made'}" in again.err
    silent = fine(run_cli(*common, "--overwrite", "--quiet"))
    assert (silent.out, silent.err) == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "some.jsonl"]


def test_build_names_its_output_after_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "news.jsonl", demo_texts(6, 100))
    (row,) = fine(run_cli("build-clusters", "news.jsonl", "--clusters", 1, "--json", "-q")).rows
    assert row["output"] == str(Path("artifacts/news"))
    assert (tmp_path / "artifacts" / "news" / "manifest.json").is_file()


def test_a_relative_model_is_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_llama(tmp_path / "lm", layers=2, width=48, context=64)
    write_corpus(tmp_path / "news.jsonl", demo_texts(6, 100))
    monkeypatch.chdir(tmp_path)
    built = fine(run_cli("build-clusters", "news.jsonl", "-c", 1, "--model", "lm", "--passage-tokens", 32, "-o", "a"))
    assert "1 cluster of " in built.err
    monkeypatch.chdir("/")
    common = ("predict", "some words", "-p", "stability", "--json", "-a", tmp_path / "a")
    assert len(fine(run_cli(*common)).rows[0]["neurons_per_layer"]) == 2
    (tmp_path / "lm").rename(tmp_path / "moved")
    lost = run_cli(*common)
    assert lost.code == 2
    assert f"{str(tmp_path / 'lm')!r}" in lost.err
    assert f"that name comes from the artifact {tmp_path / 'a'}" in lost.err
    assert "give --model PATH" in lost.err
    assert fine(run_cli(*common, "--model", tmp_path / "moved")).rows


@pytest.mark.parametrize("asked", [None, 6])
def test_what_was_held_out_is_said(artifact: Path, asked: int | None) -> None:
    made = Artifact.load(artifact).manifest
    made = replace(made, config=made.config | {"clusters": asked})
    why = "the threshold" if asked else "K and the threshold"
    said = built_in_lines(made, artifact)
    assert said.startswith("6 clusters of 57 passages (")
    assert f" tokens); 3 held out to choose {why}; in {artifact}" in said


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
    for word in ("hybrid (strong match", "cluster ", "membrane", "6,144 neurons kept", "keep 0.4"):
        assert word in out


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


def test_evaluate(artifact: Path, tmp_path: Path) -> None:
    texts = write_corpus(tmp_path / "held.jsonl", [*demo_texts(60, 3000)[3::5]])
    common = (
        "evaluate",
        texts,
        "-a",
        artifact,
        "--prompt-tokens",
        32,
        "--continuation-tokens",
        32,
        "--dtype",
        "float32",
    )
    rows = json.loads(fine(run_cli(*common, "--json", "-k", 0.2)).out)
    rise = {row["policy"]: row["nll_rise"] for row in rows}
    assert list(rise) == ["dense", *LADDER]
    assert rise["dense"] == 0
    assert rise["random"] > rise["similarity"] > rise["oracle"]
    shown = fine(run_cli(*common, "-k", 0.5, "--limit", 2, "-p", "auto", "-p", "oracle")).out
    assert "2 texts: 32 prompt tokens dense" in shown
    assert "oracle" in shown


@pytest.mark.parametrize("verb", ["generate", "inspect"])
def test_reader_that_goes_away(artifact: Path, verb: str) -> None:
    """``coreinfer … | head -1``: no traceback, and the generation ends."""
    read, write = os.pipe()
    given = ("-a", artifact, PROMPTS[0], "-n", 400, "-q") if verb == "generate" else (artifact,)
    process = start(verb, *given, stdout=write)
    os.close(write)
    assert os.read(read, 1)
    os.close(read)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_interrupt_of_a_real_generation(artifact: Path) -> None:
    process = start("generate", "-a", artifact, PROMPTS[0], "-n", 400)
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert out.endswith("\n"), "the text that was cut short ends its line"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_stdout(artifact: Path) -> None:
    with open("/dev/full", "w") as full:
        process = start("inspect", artifact, stdout=full.fileno())
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.startswith("error: ")
    assert "No space left" in err
    assert len(err.splitlines()) == 1


def test_what_a_loss_may_cost_needs_a_curve_and_no_keep(artifact: Path) -> None:
    for verb in ("predict", "generate"):
        both = run_cli(verb, "Hello there.", "-a", artifact, "--keep", "0.4", "--max-loss", "0.1")
        assert (both.code, both.err.count("\n")) == (2, 1)
        assert "--keep 0.4 and --max-loss 0.1" in both.err
    bare = run_cli("predict", "Hello there.", "-a", artifact, "--max-loss", "0.1")
    assert bare.code == 2
    assert "coreinfer calibrate" in bare.err


def test_calibrate_refuses_too_few_texts(artifact: Path, corpus: Path) -> None:
    before = tree(artifact)
    made = run_cli("calibrate", artifact, corpus)
    assert (made.code, made.err.count("\n")) == (2, 1)
    assert "128 tokens" in made.err
    assert tree(artifact) == before
