"""What the command line does before anything heavy is imported."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import small_artifacts
from command_line import fine, start
from conftest import ROOT, run_cli

import coreinfer
from coreinfer.cli_options import named_after

VERBS = ("build-clusters", "predict", "generate", "inspect", "evaluate", "calibrate", "adapt")


def test_version() -> None:
    assert run_cli("--version").out == f"coreinfer {coreinfer.__version__}\n"


@pytest.mark.parametrize("verb", [(), *((verb,) for verb in VERBS)], ids=lambda verb: "-".join(verb) or "coreinfer")
def test_help_is_quick(verb: tuple[str, ...]) -> None:
    best = 9.0
    for _ in range(8):  # processor time, the best of some: other programs on the machine do not count
        if best < 0.3:
            break
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


CHEAP = (
    "build-clusters {data} --clusters x", "build-clusters {data} --keep 2", "build-clusters {data} --statistic x",
    "build-clusters {data} --seed -1", "build-clusters {data} --dtype x", "build-clusters {data} -o {there}",
    "build-clusters {data} --limit 0", "build-clusters {data}.jsonl", "predict words -a {there}", "predict -p x words",
    "predict --dtype x words", "generate --keep 7 words", "generate  -f {data}", "predict words -o {data}/x.jsonl",
    "inspect --map {there}/x.gif", "predict words --with-neurons", "predict words --max-loss -1",
    "generate words --max-loss nan", "generate words --max-loss 1 --keep 0.4", "predict words --max-loss 1 -p hybrid",
    "predict words -a {bare} --max-loss 1", "generate words -a {bare} --max-loss 1", "generate words --memory 12",
)  # fmt: skip


@pytest.mark.parametrize("line", CHEAP)
def test_cheap_checks_come_before_heavy_imports(tmp_path: Path, line: str) -> None:
    (data := tmp_path / "data.jsonl").write_text('{"prompt": " "}\n', "utf-8")
    (there := tmp_path / "there").mkdir()
    small_artifacts.write(bare := tmp_path / "bare")  # without a curve
    arguments = line.format(data=data, there=there, bare=bare).split()
    code = (
        "import sys, cli\n"
        f"sys.argv = ['coreinfer', *{arguments}]\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout == "2 False\n", said.stderr
    assert said.stderr.startswith("error: ")


def test_torch_threads_sleep_while_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY")
    run_cli("--version")
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    run_cli("--version")
    assert os.environ["OMP_WAIT_POLICY"] == "active"
