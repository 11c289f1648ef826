"""Every command and program of docs/RUNTIMES.md, in its order, in an empty folder. `make test-runtimes` runs it."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, run_cli

for needed in ("onnx", "onnxruntime", "llama_cpp"):
    pytest.importorskip(needed)
BLOCKS = re.findall(r"```(python)?\n(.*?)```", (ROOT / "docs" / "RUNTIMES.md").read_text("utf-8"), re.DOTALL)


def test_all_of_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    verbs = list[str]()
    for is_python, block in BLOCKS:
        if is_python:
            exec(block, space)
            continue
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["coreinfer"]:
                said = run_cli(*words[1:])
                assert said.code == 0, (line, said.err)
                verbs.append(words[1])
    assert [verbs.count(verb) for verb in ("export", "import", "route")] == [8, 1, 2]
    assert {path.name for path in tmp_path.iterdir()} >= {"three", "small", "plants", "global", "models", "mine.bits"}
