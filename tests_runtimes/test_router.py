"""Two exported clusters behind llama.cpp's own server, each prompt to its own. `make test-runtimes` runs it."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, run_cli

from coreinfer.artifact import Artifact
from coreinfer.paths import DEMO_CLUSTERS

llama_cpp = pytest.importorskip("llama_cpp")
pytest.importorskip("sse_starlette")
EXAMPLE = ROOT / "examples" / "route_llama_server.py"
CLUSTERS, WEAK = (3, 40), "She sang a song about love."


def example() -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "example"}
    exec(compile(EXAMPLE.read_text("utf-8"), str(EXAMPLE), "exec"), space)
    return space


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "models"
    numbers = [word for c in CLUSTERS for word in ("-c", c)]
    made = run_cli("export", "--to", "gguf", "--weights", "f32", *numbers, "--output", place, "-q")
    assert made.code == 0, made.err
    made = run_cli("export", "--to", "gguf", "--weights", "f32", "-c", -1, "--keep", 1,
                   "--output", place.parent / "dense", "-q")  # fmt: skip
    assert made.code == 0, made.err
    return place


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = models.parent / "server.json"
    settings.write_text(json.dumps(example()["config"](models, models.parent / "dense", port)), "utf-8")
    log = models.parent / "server.log"  # a file: each change of models fills a pipe that nobody reads
    with log.open("w") as said:
        command = [sys.executable, "-m", "llama_cpp.server", "--config_file", str(settings)]
        running = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        yield _ready(f"http://127.0.0.1:{port}", running, log)
    finally:
        running.terminate()
        running.wait(20)


def _ready(address: str, running: "subprocess.Popen[bytes]", log: Path) -> str:
    for _ in range(240):
        assert running.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/v1/models") as answer:
                assert len(json.load(answer)["data"]) == len(CLUSTERS) + 1
                return address
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the server did not begin")


def test_each_prompt_is_answered_by_its_cluster(models: Path, server: str) -> None:
    opened, space = Artifact.load(DEMO_CLUSTERS), example()
    prompts = [f"A text about {', '.join(opened.terms[c][:5])}." for c in CLUSTERS]
    assert space["routed"](models, [*prompts, WEAK]) == [*(f"cluster-{c}" for c in CLUSTERS), "dense"]
    assert space["ask"]("dense", WEAK, server, 4)
    said = dict[str, list[str]]()
    for c in CLUSTERS:
        alone = llama_cpp.Llama(str(models / f"cluster-{c}" / "model.gguf"), n_ctx=256, n_batch=1, verbose=False)
        name = f"cluster-{c}"
        said[name] = [space["ask"](name, prompt, server, 16) for prompt in prompts]
        for prompt, text in zip(prompts, said[name], strict=True):
            assert text == alone(prompt, max_tokens=16, temperature=0)["choices"][0]["text"]
    assert said["cluster-3"] != said["cluster-40"]  # two models answered
