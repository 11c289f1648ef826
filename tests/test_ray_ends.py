"""A Ray that does not come up: what it left, processes and files, goes. What speaks here only does as Ray does."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coreinfer import CoreInferError
from pipeline.shards import actors
from pipeline.shards.actors import Cluster

BRIDGE = """
import json, subprocess, sys
wanted = json.loads(sys.stdin.readline())
agent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(wanted["folder"] + "/" + str(agent.pid), "w").close()
open(sys.argv[1], "w").write(wanted["folder"] + " " + str(agent.pid))
print(json.dumps({"hand": "", "refused": "it did not come up"}), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_nothing_is_left_of_a_ray_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def talking(module: str, errors: int, apart: bool, **more: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", BRIDGE, str(tmp_path / "said")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, start_new_session=apart,
        )  # fmt: skip

    monkeypatch.setattr(actors, "talking", talking)
    with pytest.raises(CoreInferError, match=r"the Ray cluster \(local\) cannot be used: it did not come up"):
        Cluster(None, 2, gpus=False)
    folder, agent = (tmp_path / "said").read_text().split()
    assert not Path(folder).exists()
    end = time.monotonic() + 10
    while _lives(int(agent)):
        assert time.monotonic() < end
        time.sleep(0.05)


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
