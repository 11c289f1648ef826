"""A build's peak memory does not grow with its corpus."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, write_corpus
from small_models import save_llama

LAYERS, WIDTH = 2, 4096  # 32 KiB a share in float32: were they kept, 4,500 passages more would take 0.15 GB more
BUILD = """
import sys
from pathlib import Path
from pipeline.build import build_clusters
from pipeline.settings import BuildSettings
from pipeline.sources import SourceSettings

corpus, model, embedder, output = sys.argv[1:]
build_clusters(BuildSettings(SourceSettings(corpus), model, embedder, clusters=8, dtype="float32"), Path(output))
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(peak.split()[1])
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("wide"), LAYERS, WIDTH, 512)


def peak(count: int, model: Path, embedder: Path, place: Path) -> int:
    """The peak resident memory, in KiB, of a process that builds from ``count`` short passages."""
    place.mkdir()
    topics = ("boats sail", "bread bakes", "comets return", "rivers flood", "engines start")
    texts = [f"Passage number {i} says that {topics[i % 5]} on day {i * 7 % 365}." for i in range(count)]
    corpus = write_corpus(place / "corpus.jsonl", texts)
    command: list[str | Path] = [sys.executable, "-c", BUILD, corpus, model, embedder, place / "made"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ)
    manifest = json.loads((place / "made" / "manifest.json").read_text())
    assert 0.97 * count <= manifest["passages"] < count
    return int(said.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from Linux")
def test_four_times_the_passages_take_no_more_memory(model: Path, shop: Path, tmp_path: Path) -> None:
    small, large = (peak(count, model, shop / "bert", tmp_path / str(count)) for count in (1500, 6000))
    assert large < 1.1 * small, (small, large)
