"""A job's log: what happens and when, for people or programs; a job that goes on continues it."""

import json
from pathlib import Path

import pytest

from coreinfer import CoreInferError
from coreinfer.progress import unseen
from pipeline.joblog import Log


def run(path: Path) -> None:
    with Log(path) as log:
        stage = log.shown(unseen)
        stage("embed", 20)
        log.put("done", shard=3, worker=1, seconds=2.5, why="")
        stage("cluster", None)


def test_lines_of_json(tmp_path: Path) -> None:
    run(tmp_path / "log.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()]
    assert [row["what"] for row in rows] == ["job begun", "begun", "done", "ended", "begun", "ended", "job ended"]
    assert rows[0].keys() >= {"time", "host", "process"}
    assert {name: rows[2][name] for name in rows[2] if name != "time"} == {
        "stage": "embed", "what": "done", "shard": 3, "worker": 1, "seconds": 2.5,
    }  # fmt: skip
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)


def test_lines_of_text_go_on(tmp_path: Path) -> None:
    for _ in range(2):
        run(tmp_path / "log")
    lines = [line.partition(" ")[2] for line in (tmp_path / "log").read_text("utf-8").splitlines()]
    assert len(lines) == 14
    assert lines[9] == "embed shard 3 worker 1 done seconds 2.5"


def test_a_job_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(CoreInferError), Log(tmp_path / "log.jsonl"):
        raise CoreInferError("no memory: buy some")
    last = json.loads((tmp_path / "log.jsonl").read_text("utf-8").splitlines()[-1])
    assert (last["what"], last["why"]) == ("job failed", "no memory: buy some")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CoreInferError, match=r"cannot write .*log: there is no folder .*nowhere; choose another --log"):
        Log(tmp_path / "nowhere" / "log")
    Log().put("nothing is written")
