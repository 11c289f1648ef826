"""What the verbs of the command line share: their options, opening an engine, and how a run ends."""

import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from coreinfer.errors import CoreInferError

if TYPE_CHECKING:
    from coreinfer.engine import Engine

ArtifactOption = Annotated[Path | None, typer.Option("--artifact", "-a", help="Artifact folder. [default: the demo]")]
ModelOption = Annotated[str | None, typer.Option("--model", "-m", help="LM: Hub name, folder or .gguf file.")]
EmbedderOption = Annotated[str | None, typer.Option("--embedder", help="sentence-transformers name or folder.")]
KeepOption = Annotated[
    float | None, typer.Option("--keep", "-k", help="Share of MLP neurons kept, above 0, at most 1.")
]
PolicyOption = Annotated[str, typer.Option("--policy", "-p", help="auto, similarity, stability, hybrid or dense.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No talk on stderr.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, …")]
DtypeOption = Annotated[str, typer.Option("--dtype", help="auto, float32 or bfloat16.")]
PromptsArgument = Annotated[list[str] | None, typer.Argument(help="Prompts. Without any: --file, or lines of stdin.")]
FileOption = Annotated[Path | None, typer.Option("--file", "-f", help="A prompt a line, or .jsonl with a `prompt`.")]


def say(text: str, quiet: bool) -> None:
    """Talk: a line on stderr."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def open_engine(
    artifact: Path | None,
    model: str | None,
    embedder: str | None,
    device: str,
    dtype: str,
    policy: str = "auto",
    keeps: Sequence[float | None] = (),
) -> "Engine":
    """Check the cheap things first, then open the artifact."""
    from coreinfer.settings import Policy, check_keep, one_of

    one_of("--policy", policy, get_args(Policy))
    for keep in keeps:
        if keep is not None:
            check_keep(keep)
    from coreinfer.engine import Engine
    from coreinfer.output import quiet_libraries
    from coreinfer.paths import DEMO_CLUSTERS

    quiet_libraries()
    return Engine.load(artifact or DEMO_CLUSTERS, model=model, embedder=embedder, device=device, dtype=dtype)


def parse_clusters(text: str) -> int | None:
    """``--clusters``: a number, or None for auto."""
    if text == "auto":
        return None
    with suppress(ValueError):
        if (number := int(text)) >= 1:
            return number
    raise CoreInferError(f"--clusters is {text!r}: give a whole number of at least 1, or auto")


def run(app: typer.Typer) -> None:
    """Run a verb. Bad input is one line and exit code 2, Ctrl-C is 130; a reader who closed the pipe is no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 still shows the rest
    command = typer.main.get_command(app)
    try:  # not command.main: it ends a run with other codes and more lines
        with command.make_context("coreinfer", sys.argv[1:] or ["--help"]) as context:
            command.invoke(context)
        sys.stdout.flush()
        return
    except typer.Exit as stop:
        code, line = stop.exit_code, ""
    except (KeyboardInterrupt, typer.Abort):
        code, line = 130, "interrupted: nothing was changed"
    except CoreInferError as error:
        code, line = 2, f"error: {error}"
    except BrokenPipeError:
        code, line = 0, ""
        _close_stdout()
    except OSError as error:
        code, line = 2, f"error: cannot read or write ({error}): check the place and its free space, then run it again"
        _close_stdout()
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's, and click's where typer brings none of its own
            raise
        code, line = 2, f"error: {_usage(error)}"
    if line:
        print(" ".join(line.split()), file=sys.stderr)
    raise SystemExit(code)


def _usage(error: Any) -> str:
    """Typer's message with what it leaves out: the value, and where to look."""
    listed: list[dict[str, Any]] = getattr(error.__cause__, "errors", list)()
    given = f" (got {listed[0]['input']!r})" if listed else ""
    command = error.ctx.command_path if getattr(error, "ctx", None) else "coreinfer"
    return f"{error.format_message().rstrip('.')}{given}: see `{command} --help`"


def _close_stdout() -> None:
    """What is still buffered cannot be written: let the interpreter's last flush go nowhere."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
