"""A server under load for minutes: what it may lose, keep and leak, and what its description promises."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from serve_client import ask, completion, started
from serve_load import Mix, freed_in_time, load

from coreinfer.paths import DEMO_CLUSTERS

SOAK_S = float(os.environ.get("SOAK_SECONDS", "600"))
SCHEMA_S = int(os.environ.get("SCHEMA_SECONDS", "120"))
SWAPS = 200


def test_a_soak(tmp_path: Path) -> None:
    """64 streams: no 5xx but 503, all that was begun is whole, nothing grows, who leaves is gone within a second."""
    with started(tmp_path / "log") as process:
        before = process.files
        seen = asyncio.run(load(process, Mix(), SOAK_S))
        time.sleep(1)
        found, after = process.metrics(), process.files
    print(json.dumps(seen.facts()))
    assert set(seen.statuses["whole"]) <= {200, 503}
    assert set(seen.statuses["leaving"]) <= {200, 503}
    assert set(seen.statuses["malformed"]) == {400}
    assert set(seen.statuses["oversized"]) == {413}
    assert seen.cut == 0
    left, soon = freed_in_time(found)
    assert left > 0
    assert soon == left
    assert found["coreinfer_slots_in_use"] == found["coreinfer_queue_length"] == 0
    assert after <= before + 2
    assert seen.growth < 0.05
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_swaps_under_load(tmp_path: Path) -> None:
    """No request is lost, and no answer is of two artifacts: their default keeps tell them apart."""
    artifacts = [Path(shutil.copytree(DEMO_CLUSTERS, tmp_path / name)) for name in ("one", "two")]
    manifest = json.loads((artifacts[1] / "manifest.json").read_text())
    (artifacts[1] / "manifest.json").write_text(json.dumps({**manifest, "default_keep": 0.2}))
    with started(tmp_path / "log", "-a", artifacts[0]) as process:
        seen = asyncio.run(load(process, Mix(16, 0.1, 0, 0), 60, artifacts, SWAPS))
    print(json.dumps(seen.facts()))
    assert seen.swaps == SWAPS
    assert all(set(statuses) == {200} for statuses in seen.statuses.values())
    assert seen.cut == 0
    assert sorted(seen.keeps.values()) == [[0.2], [0.4]]


def test_what_the_description_says_holds(tmp_path: Path) -> None:
    """Schemathesis makes requests of the OpenAPI description, good and bad ones."""
    pytest.importorskip("schemathesis")
    with started(tmp_path / "log", "--context", 64, "--plain-chat") as process:
        url = f"http://127.0.0.1:{process.port}/openapi.json"
        code = "import sys; from schemathesis.cli import schemathesis; schemathesis(sys.argv[1:])"
        # Whether a prompt fits or a folder is there is not for a schema to say: what is well-formed may be refused.
        options = ["--phases", "examples,coverage,fuzzing", "--exclude-checks", "positive_data_acceptance"]
        command = [sys.executable, "-c", code, "run", url, "--max-time", str(SCHEMA_S), *options]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        made = subprocess.run(command, capture_output=True, text=True, env=env)
    assert made.returncode == 0, made.stdout[-8000:] + made.stderr[-2000:]


def test_signals(tmp_path: Path) -> None:
    """SIGHUP loads the folder anew, good or bad; SIGTERM lets a stream end, and the process ends well."""
    place = Path(shutil.copytree(DEMO_CLUSTERS, tmp_path / "artifact"))
    log = tmp_path / "log"
    with started(log, "-a", place) as process:
        good = (place / "manifest.json").read_text()
        (place / "manifest.json").write_text(good.replace('"seed": 0', '"seed": 1'))
        os.kill(process.pid, signal.SIGHUP)
        assert _said(log, "is served now, artifact")
        (place / "manifest.json").write_text("{")
        os.kill(process.pid, signal.SIGHUP)
        assert _said(log, "is served as before")

        async def stopped_amid() -> bool:
            text = asyncio.create_task(ask(process.port, completion(0, 400)))
            await asyncio.sleep(0.2)
            assert not text.done()
            os.kill(process.pid, signal.SIGTERM)
            return (await text).whole

        assert asyncio.run(stopped_amid())
        assert _refuses(process.port)


def _refuses(port: int) -> bool:
    """Whether nobody listens, soon."""

    def refused() -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
        except OSError as error:
            return "refused" in str(error)
        return False

    return _soon(refused)


def _said(log: Path, words: str) -> bool:
    return _soon(lambda: words in log.read_text())


def _soon(wanted: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not (found := wanted()) and time.monotonic() < end:
        time.sleep(0.05)
    return found
