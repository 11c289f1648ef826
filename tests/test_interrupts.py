"""Ctrl-C that something swallows comes again, and what cleans up because of it is left alone."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT

from coreinfer.interrupts import arriving


@pytest.fixture(autouse=True)
def as_in_a_terminal() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)  # the handler runs in here


def bare() -> None:
    with suppress(BaseException):
        press()


def as_another() -> None:
    try:
        press()
    except KeyboardInterrupt as error:
        raise ImportError("an extension failed to import") from error


def called_back() -> None:
    ctypes.CFUNCTYPE(None)(press)()


class Destroyed:
    def __del__(self) -> None:
        press()


@pytest.mark.parametrize("swallow", [bare, as_another, Destroyed, called_back])
def test_what_is_swallowed_comes_again(swallow: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.perf_counter()
    with pytest.raises(KeyboardInterrupt), arriving():  # noqa: PT012
        swallow()
        time.sleep(30)
    assert time.perf_counter() - begun < 5
    assert capsys.readouterr().err == ""


def test_a_polite_kill_comes_again_too(capsys: pytest.CaptureFixture[str]) -> None:
    def killed() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)

    before = signal.signal(signal.SIGTERM, lambda *_: None)  # as a program that handles it has
    try:
        with pytest.raises(SystemExit) as ended, arriving():  # noqa: PT012
            ctypes.CFUNCTYPE(None)(killed)()
            time.sleep(30)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err == ""


def test_cleaning_up_is_left_alone() -> None:
    done = list[str]()
    with pytest.raises(KeyboardInterrupt), arriving():  # noqa: PT012
        try:
            press()
        finally:
            time.sleep(0.5)  # two more tries fall in here
            press()  # and an impatient user
            done.append("cleaned up")
    assert done == ["cleaned up"]
    time.sleep(0.3)  # no try is left over


def test_errors_are_errors_and_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)], sys.unraisablehook
    with pytest.raises(ImportError), arriving():
        raise ImportError
    assert before == ([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)], sys.unraisablehook)


def test_where_it_is_ignored_it_stays_ignored() -> None:
    """As in a shell's background jobs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with arriving():
        press()


def worked(process: "subprocess.Popen[str]") -> float:
    """Seconds that processors have worked for it."""
    of_stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, of_stat[11:13])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux how far a process is")
@pytest.mark.parametrize("after", [0.1, 0.2, 0.23, 0.4, 0.8, 1.2, 1.6])
def test_a_verb_whenever_it_is_interrupted(after: float) -> None:
    """After so much work, not time: on a busy machine Python itself may need half a second to begin."""
    command = [sys.executable, "-m", "cli", "generate", "words", "-n", "400", "-q"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while worked(process) < after:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    # Python itself ends by the signal, a shell's 130 too, where it fell into an exec: a dataclass being imported.
    assert process.returncode in (130, -signal.SIGINT)
    assert err == "interrupted\n"
