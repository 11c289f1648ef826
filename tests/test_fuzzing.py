"""The parsers of an artifact's JSON files under coverage-guided fuzzing, a minute each; `make fuzz` takes longer."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT

SECONDS = int(os.environ.get("COREINFER_FUZZ_SECONDS", "60"))


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed: it has no wheel for this Python")
@pytest.mark.parametrize("name", ["manifest", "calibration"])
def test_whatever_it_holds_it_is_read_or_refused_by_one_line(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests" / "fuzz_json.py"), name, f"-max_total_time={SECONDS}", "-rss_limit_mb=0"]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    ran = re.search(r"Done (\d+) runs", done.stderr)
    assert ran, done.stderr[-3000:]
    assert int(ran[1]) > 50 * SECONDS, "so few inputs show nothing"
    assert list(tmp_path.iterdir()) == []  # an input that broke it would lie there
