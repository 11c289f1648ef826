"""What the first step on a machine may come to: a wait that is said, a kernel that fails, and who decodes then."""

import logging
import time
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from asking import PROMPT
from command_line import fine
from conftest import run_cli
from families import build, down_modules
from families import one_thread as one_thread
from slow_truths import greedy, some
from test_runtime import GREEDY, NEW, Seen, ids

from coreinfer import CoreInferError, waiting
from coreinfer.clock import Clock
from coreinfer.decode import decoder
from coreinfer.decode.compiling import NotCompiled, faults_named
from coreinfer.decode.decoder import Decoder
from coreinfer.decode.families import read_network
from coreinfer.runtime import Runtimes
from coreinfer.settings import StatisticSettings
from coreinfer.waiting import said_if_long

OPTIONS: dict[str, Any] = GREEDY


def out_of_resources() -> Exception:
    errors = pytest.importorskip("triton.runtime.errors")
    made: Exception = errors.OutOfResources(300_000, 232_448, "shared memory")
    return made


def compilation_error() -> Exception:
    import ast

    errors = pytest.importorskip("triton.compiler.errors")
    made: Exception = errors.CompilationError("x = tl.no_such(y)", ast.parse("x = 1").body[0], "no_such is not defined")
    return made


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let a decoder on the CPU do as one on a GPU does, whose kernels raise what a test puts here."""
    pytest.importorskip("triton")
    from coreinfer.decode import steps

    faults, tried = list[Exception](), list[int]()

    def capture(self: Any) -> None:
        tried.append(1)
        raise faults[0]

    def begin(self: Decoder, *arguments: Any) -> None:
        self.on_gpu = True
        began(self, *arguments)

    began = Decoder.begin
    monkeypatch.setattr(steps.Step, "capture", capture)
    monkeypatch.setattr(Decoder, "begin", begin)
    monkeypatch.setattr(decoder, "read_network", lambda model, bundle: read_network(model, bundle=True))
    return faults, tried


FAULTS = (
    (out_of_resources, "OutOfResources: out of resource: shared memory"),
    (compilation_error, "CompilationError: no_such is not defined"),
    (lambda: RuntimeError("Failed to find C compiler. Please specify via CC."), "Failed to find C compiler"),
)


@pytest.mark.parametrize(("fault", "said"), FAULTS)
def test_a_kernel_that_fails_leaves_it_to_transformers(
    fault: Any, said: str, on_gpu: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The text is whole, streamed once; that is said once, and the kernel is not tried again."""
    faults, tried = on_gpu
    faults.append(fault())
    model = build("Llama")
    wanted = greedy(model, down_modules(model, "Llama"), some(), ids(), NEW)
    runtimes = Runtimes(model, StatisticSettings(), 0)
    for _ in range(2):
        seen = Seen()
        made = runtimes.run("auto", ids(), some(), NEW, Clock(seen), lambda token: False, OPTIONS)
        assert (made.ids[0].tolist(), made.runtime) == (wanted, "transformers")
        assert seen.tokens == wanted
    assert len(tried) == 1
    (line,) = [record.getMessage() for record in caplog.records if record.name == "coreinfer.runtime"]
    assert line.startswith("coreinfer's own steps cannot serve the device 'cpu', where a kernel fails (")
    assert said in line
    assert line.endswith("): Transformers makes the tokens")


@pytest.mark.parametrize(("fault", "said"), FAULTS)
def test_who_asks_for_coreinfer_gets_one_line(
    fault: Any, said: str, on_gpu: Any, caplog: pytest.LogCaptureFixture
) -> None:
    on_gpu[0].append(fault())
    runtimes = Runtimes(build("Llama"), StatisticSettings(), 0)
    for _ in range(2):
        with pytest.raises(CoreInferError) as error:
            runtimes.run("coreinfer", ids(), some(), NEW, Clock(None), lambda token: False, OPTIONS)
        assert str(error.value).endswith("): let --runtime be auto")
        assert said in str(error.value)
        assert "\n" not in str(error.value)
    assert not caplog.records


@pytest.mark.parametrize("fault", [torch.OutOfMemoryError("CUDA out of memory"), TypeError("a fault of our own")])
def test_other_faults_are_not_the_kernels(fault: Exception, on_gpu: Any) -> None:
    on_gpu[0].append(fault)
    with pytest.raises(type(fault)):
        Runtimes(build("Llama"), StatisticSettings(), 0).run(
            "auto", ids(), some(), NEW, Clock(None), lambda token: False, OPTIONS
        )


def test_its_message_stands_alone() -> None:
    pytest.importorskip("triton")
    said = (
        r"^the device 'cuda:0', where a kernel fails \(OSError: a\) is not decoded by .*: use Transformers' generate$"
    )
    with pytest.raises(NotCompiled, match=said), faults_named("cuda:0"):
        raise OSError("a")


def test_only_a_long_wait_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "coreinfer")
    with said_if_long("compiling", 60):
        pass
    assert not caplog.records
    with said_if_long("compiling", 0):
        waited = time.monotonic()
        while not caplog.records and time.monotonic() < waited + 60:
            time.sleep(0.01)
    assert [record.getMessage() for record in caplog.records] == ["compiling"]


@pytest.mark.parametrize("quiet", [False, True])
def test_the_command_line_says_it_unless_quiet(artifact: Path, quiet: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    swift, said = pytest.importorskip("coreinfer.decode.swift"), Event()
    run = swift.SwiftStep.run

    def slow(self: Any) -> None:
        assert said.wait(60)
        run(self)

    monkeypatch.setattr(decoder, "PATIENCE", 0.0)
    monkeypatch.setattr(waiting.log, "filters", [lambda record: said.set() or True])  # type: ignore[func-returns-value]
    monkeypatch.setattr(swift.SwiftStep, "run", slow)
    err = fine(run_cli("generate", PROMPT, "-a", artifact, "-n", 3, "--json", *["-q"] * quiet)).err
    assert ("compiling the loops of this processor's steps, once on a machine\n" in err) != quiet
