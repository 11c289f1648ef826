"""The command line in a process of its own, and what its verbs are tried on."""

import os
import signal
import subprocess
import sys

from conftest import ROOT, Result

PROMPTS = ("Every living cell is wrapped in a membrane", "Question: how fast does a ball fall? Answer:")


def start(*arguments: object, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cli", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True, env=os.environ,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip


def in_new_process(code: str, *arguments: object) -> Result:
    """How a Python program ended that nothing was imported into before."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return Result(said.returncode, said.stdout, said.stderr)


def fine(result: Result) -> Result:
    assert result.code == 0, result.err
    assert "Traceback" not in result.err
    return result
