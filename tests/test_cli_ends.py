"""How a verb ends that a closed pipe, Ctrl-C or a full disk stops."""

import os
import signal
from pathlib import Path

import pytest
from command_line import PROMPTS, start


@pytest.mark.parametrize("verb", ["generate", "inspect"])
def test_reader_that_goes_away(artifact: Path, verb: str) -> None:
    """``coreinfer … | head -1``: no traceback, and the generation ends."""
    read, write = os.pipe()
    given = ("-a", artifact, PROMPTS[0], "-n", 400, "-q") if verb == "generate" else (artifact,)
    process = start(verb, *given, stdout=write)
    os.close(write)
    assert os.read(read, 1)
    os.close(read)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_interrupt_of_a_real_generation(artifact: Path) -> None:
    process = start("generate", "-a", artifact, PROMPTS[0], "-n", 400)
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err.removeprefix("loading libraries and models\n")) == (130, "interrupted\n")
    assert out.endswith("\n"), "the text that was cut short ends its line"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_stdout(artifact: Path) -> None:
    with open("/dev/full", "w") as full:
        process = start("inspect", artifact, stdout=full.fileno())
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.startswith("error: ")
    assert "No space left" in err
    assert len(err.splitlines()) == 1
