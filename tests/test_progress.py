"""Progress of long jobs: lines in a log, bars in a terminal, nothing for who asked for quiet."""

import io
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from coreinfer.progress import Stage, one_line, stages
from pipeline.stopwatch import Stopwatch


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(stage: Stage) -> None:
    stage("load", None)(1)
    tick = stage("measure", 20)
    for _ in range(3):
        tick(5)


def test_a_log_names_each_stage_that_gets_on(capsys: pytest.CaptureFixture[str]) -> None:
    with stages(quiet=False) as stage:
        stage("load", None)
        tick = stage("measure", 20)
        assert capsys.readouterr().err == ""
        tick(5)
        assert capsys.readouterr().err == "measure\n"
        tick(5)
    assert capsys.readouterr() == ("", "")


def test_a_log_names_a_stage_in_one_piece_at_its_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    with stages(quiet=False) as stage:
        watch = Stopwatch(stage)
        watch.show("cluster")
        assert capsys.readouterr().err == "cluster\n"
        watch.stop()
    assert watch.seconds["cluster"] >= 0
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with stages(quiet=False) as stage:
        work(stage)
    last = shown.getvalue().split("\r")[-1]
    assert "measure" in last
    assert "20/20" in last  # what began is done when the job is


def test_one_line_takes_the_place_of_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    with pytest.raises(ValueError), one_line(quiet=False) as stage:  # noqa: PT011, PT012
        stage("measure much", 20)(5)
        stage("load", None)(0)
        assert "\n" not in shown.getvalue()
        raise ValueError
    lines = shown.getvalue().split("\r")[1::2]
    assert [line.strip() for line in lines] == ["measure much", "measure much 5/20", "load", "load", ""]
    assert [len(line) for line in lines] == [12, 17, 17, 4, 4]  # what was there is written over


def test_one_line_in_a_log_is_a_line_for_each_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with one_line(quiet=False) as stage:
        work(stage)
    assert capsys.readouterr().err == "load\nmeasure\n"


@pytest.mark.parametrize("place", [io.StringIO, Terminal])
@pytest.mark.parametrize("way", [stages, one_line])
def test_quiet_is_quiet(
    place: type[io.StringIO], way: Callable[[bool], AbstractContextManager[Stage]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", shown := place())
    with way(True) as stage:
        work(stage)
    assert shown.getvalue() == ""
