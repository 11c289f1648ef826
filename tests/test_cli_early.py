"""What the command line does before anything heavy is imported."""

import gc
import json
import os
import re
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import small_artifacts
from command_line import fine, in_new_process
from conftest import run_cli

import coreinfer
from coreinfer import libraries
from coreinfer.cli_options import named_after, say
from coreinfer.waiting import said_if_long

VERBS = (
    "build-clusters", "predict", "generate", "inspect", "report", "evaluate", "analyze", "calibrate", "update",
    "verify", "diff", "adapt", "bench", "export", "import", "route",
)  # fmt: skip
HEAVY = {
    "torch", "transformers", "sentence_transformers", "faiss", "pyarrow", "sklearn", "datasets", "numpy", "scipy",
    "pandas", "matplotlib", "numba", "triton", "peft", "rich",
}  # fmt: skip
HELP = f"""
import io, sys, time
from contextlib import redirect_stdout
from typing import Annotated
import typer

bare = typer.Typer(add_completion=False, rich_markup_mode=None)

@bare.callback()
def options(version: Annotated[bool, typer.Option("--version")] = False) -> None: ...

@bare.command()
def verb(place: Annotated[str, typer.Argument()], size: Annotated[int | None, typer.Option()] = None) -> None: ...

with redirect_stdout(io.StringIO()):
    bare(["verb", "--help"], standalone_mode=False)
floor = time.process_time()  # of Python, Typer and what both import, without which there is no help
import cli
try:
    cli.main()
finally:
    print(time.process_time() / floor, *({HEAVY!r} & sys.modules.keys()), file=sys.stderr)
"""


def test_version() -> None:
    assert run_cli("--version").out == f"coreinfer {coreinfer.__version__}\n"


@pytest.mark.parametrize("verb", [(), *((verb,) for verb in VERBS)], ids=lambda verb: "-".join(verb) or "coreinfer")
def test_help_is_quick(verb: tuple[str, ...]) -> None:
    """In processor time, against a program of Typer's that does nothing: on any machine some 1.2 times that."""
    said = in_new_process(HELP, *verb, "--help")
    share, *heavy = said.err.split()
    assert (said.code, heavy) == (0, [])
    assert float(share) < 2
    assert "Usage: coreinfer" in said.out
    assert all(name in said.out for name in (VERBS if not verb else ("--help",)))


def test_each_summary_is_a_whole_sentence() -> None:
    """At any width: the sentences wrap. They stand in the order of the verbs, each from its docstring's start."""
    said = run_cli("--help").out
    assert "..." not in said.partition("Commands:")[2]
    rows = re.split(r"\n  (?=[a-z])", said.partition("Commands:")[2])[1:]
    summaries = {row.split()[0]: " ".join(row.split()[1:]) for row in rows}
    assert {*VERBS, "merge", "serve"} == set(summaries)
    for verb, sentence in summaries.items():
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert sentence in " ".join(run_cli(verb, "--help").out.split())


@pytest.mark.parametrize(
    ("verb", "usage"),
    [
        ("", "[OPTIONS] COMMAND [ARGS]..."), ("build-clusters", "[OPTIONS] DATASET"),
        ("diff", "[OPTIONS] FIRST SECOND"), ("generate", "[OPTIONS] [PROMPTS]..."),
        ("inspect", "[OPTIONS] [ARTIFACT]"), ("bench", "[OPTIONS]"),
    ],
)  # fmt: skip
def test_usage_is_written_as_clicks_is_and_h_shows_it(verb: str, usage: str) -> None:
    asked = [verb] if verb else []
    said = fine(run_cli(*asked, "-h")).out
    assert said == run_cli(*asked, "--help").out
    assert said.splitlines()[0] == " ".join(["Usage: coreinfer", *asked, usage])
    assert "-h, --help" in said


def test_without_a_verb_it_shows_its_help() -> None:
    assert "build-clusters" in fine(run_cli()).out


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("sub/news.jsonl.gz", "news"), ("sub", "sub"), ("sub/", "sub"), ("sub/*.jsonl*", "sub"), ("**/*.txt", "here"),
        ("*", "here"), (".", "here"), ("me/data-v1.0", "data-v1.0"), ("data", "data"), ("sub/v1.0", "v1.0"),
    ],
)  # fmt: skip
def test_the_default_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, name: str) -> None:
    (tmp_path / "here" / "sub" / "v1.0").mkdir(parents=True)
    (tmp_path / "here" / "sub" / "news.jsonl.gz").write_bytes(b"")
    monkeypatch.chdir(tmp_path / "here")
    assert named_after(dataset) == Path("artifacts") / name


REFUSED = """
import sys, cli
for line in sys.argv[1:]:
    sys.argv = ["coreinfer", *line.split()]
    try:
        cli.main()
    except SystemExit as end:
        print(f"{line}: {end.code}", "torch" in sys.modules)
"""
CHEAP = (
    "build-clusters {texts} --clusters x", "build-clusters {texts} --keep 2", "build-clusters {texts} --statistic x",
    "build-clusters {texts} --seed -1", "build-clusters {texts} --dtype x", "build-clusters {texts} -o {there}",
    "build-clusters {texts} --workers 0", "build-clusters {texts} --shard-passages 100",
    "build-clusters {texts} --pass embed", "build-clusters {texts} --work {there} --pass embed --shard 2/2",
    "build-clusters {texts} --stats {data}/x.json", "build-clusters {texts} --limit 0",
    "build-clusters {data}.jsonl", "predict words -a {there}", "predict -p x words",
    "predict --dtype x words", "generate --keep 7 words", "generate  -f {data}", "predict words -o {data}/x.jsonl",
    "inspect --map {there}/x.gif", "predict words --with-neurons", "predict words --max-loss -1",
    "generate words --max-loss nan", "generate words --max-loss 1 --keep 0.4", "predict words --max-loss 1 -p hybrid",
    "predict words -a {bare} --max-loss 1", "generate words -a {bare} --max-loss 1", "generate words --memory 12",
    "verify {there}", "verify {bare} --dtype x", "diff {bare} {there}", "update {bare} {texts} -o {there}/x --limit 0",
    "update {bare} {texts} -o {bare}", "update {there} {texts} -o {there}/x", "update {bare} {data}.jsonl -o {there}/x",
    "update {bare} {texts} -o {there}/x --workers 0", "update {bare} {texts} -o {there}/x --log {data}/x.log",
    "predict words --model no/such", "generate words --embedder no/such", "evaluate {data} --model no/such",
    "build-clusters no/such", "build-clusters {texts} --model no/such", "bench --model no/such",
)  # fmt: skip


def test_cheap_checks_come_before_heavy_imports(tmp_path: Path) -> None:
    (data := tmp_path / "data.jsonl").write_text('{"prompt": " "}\n', "utf-8")
    (texts := tmp_path / "texts.jsonl").write_text('{"text": "Words enough for a passage."}\n', "utf-8")
    (there := tmp_path / "there").mkdir()
    small_artifacts.write(bare := tmp_path / "bare")  # without a curve
    absent = ["generate words --runtime llama.cpp"] if find_spec("llama_cpp") is None else []
    places = {"data": data, "texts": texts, "there": there, "bare": bare}
    lines = [*(line.format(**places) for line in CHEAP), *absent]
    said = in_new_process(REFUSED, *lines)
    assert said.out.splitlines() == [f"{line}: 2 False" for line in lines]
    assert len(said.err.splitlines()) == len(lines)
    assert all(line.startswith("error: ") for line in said.err.splitlines())


MISTAKES = (
    ("build-clusters {texts}.jsonl -o {there}", "no such file"),
    ("build-clusters {texts} --model no/x -o {there}", "no/x"),
    ("build-clusters {texts} --text-column body -o {there}", "no column 'body' among 'text'"),
    ("build-clusters {data} -o {there}", "has no usable text"),
    ("build-clusters {texts} --split x -o {there}", "'x'"),
    ("build-clusters {texts} --embedder no/x -o {there}", "no/x"),
    ("build-clusters {texts} --engine ray --address x -o {there}", "ray"),
    ("build-clusters {texts} --stats {there} -o {there}", "--stats"),
    ("build-clusters {texts} --work {texts}/x -o {there}", "--work"),
    ("build-clusters {texts} -o {there}", "{there} exists already"),
    ("merge {texts} -o {there}", "cannot be read"),
    ("merge {there} -o {there}", "{there} holds no build"),
    ("update {bare} {texts} --text-column body -o {there}", "no column 'body' among 'text'"),
    ("update {bare} {texts} --model no/x -o {there}", "no/x"),
    ("update {bare} {texts} -o {there}", "{there} exists"),
    ("export --to numpy -c 5 -a {bare} -o {there}", "no cluster 5"),
    ("export --to numpy --prompt x -a {bare} -o {there}", "leave out --prompt"),
    ("export --to numpy -a {there} -o {there}", "no artifact at"),
    ("export --to transformers -c 4 -a {bare} --model no/x -o {there}", "no/x"),
    ("export --to transformers --prompt x -a {bare} --embedder no/x -o {there}", "no/x"),
    ("export --to safetensors -c 4 --neurons {there}/x.bits -o {there}", "cannot read the neuron sets"),
    ("export --to safetensors -c 4 --neurons x.bits --all -o {there}", "give one of them"),
    ("export --to numpy -c 4 -a {bare} -o {there}", "{there} exists already"),
)


def test_that_an_output_exists_is_said_when_all_else_is_right(tmp_path: Path) -> None:
    """Whoever chooses another one then hears of no mistake that was there all along."""
    (data := tmp_path / "data.jsonl").write_text('{"prompt": " "}\n', "utf-8")
    (texts := tmp_path / "texts.jsonl").write_text('{"text": "Words enough for a passage."}\n', "utf-8")
    (there := tmp_path / "there").mkdir()
    small_artifacts.write(bare := tmp_path / "bare")
    places = {"data": data, "texts": texts, "there": there, "bare": bare}
    lines = [line.format(**places) for line, _ in MISTAKES]
    said = in_new_process(REFUSED, *lines)
    assert said.out.splitlines() == [f"{line}: 2 False" for line in lines]
    for line, (_, words) in zip(said.err.splitlines(), MISTAKES, strict=True):
        assert words.format(**places) in line


NEEDLESS = {"matplotlib", "numba", "llama_cpp"}
PREDICT = f"""
import gc, sys
from coreinfer import libraries
libraries.PATIENCE = 0.05
import cli
cli.main()
print(sorted({NEEDLESS!r} & sys.modules.keys()), gc.isenabled(), gc.get_freeze_count() > 100_000)
"""


def test_a_prediction_imports_what_it_needs_and_says_that_it_takes_long() -> None:
    said = fine(in_new_process(PREDICT, "predict", "Some words.", "--json"))
    row, facts = said.out.splitlines()
    assert json.loads(row)["prompt"] == "Some words."
    assert facts == "[] True True"
    assert said.err == "loading libraries and models\n"


@pytest.mark.parametrize("quiet", [False, True])
def test_quick_or_quiet_loading_is_not_said(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    frozen = gc.get_freeze_count()
    libraries.load_libraries(quiet, embeds=False)
    with said_if_long("loading", 0, lambda text: say(text, quiet)):
        time.sleep(0.2)
    assert capsys.readouterr().err == "loading\n" * (not quiet)
    assert gc.isenabled()
    assert gc.get_freeze_count() <= frozen, "some that were frozen may be gone"


def test_torch_threads_sleep_while_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY")
    run_cli("--version")
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    run_cli("--version")
    assert os.environ["OMP_WAIT_POLICY"] == "active"
