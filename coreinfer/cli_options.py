"""What the verbs of the command line share: their options, cheap checks before heavy work, and how a run ends."""

import io
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from coreinfer.errors import CoreInferError
from coreinfer.interrupts import arriving
from coreinfer.places import FULL

if TYPE_CHECKING:
    from coreinfer.artifact import Artifact
    from coreinfer.engine import Engine

FILE_HELP = "A prompt a line, also in .txt; or .jsonl with a `prompt`, `messages` or `text` a line."
ArtifactOption = Annotated[Path | None, typer.Option("--artifact", "-a", help="Artifact folder. [default: the demo]")]
ModelOption = Annotated[str | None, typer.Option("--model", "-m", help="LM: Hub name, folder or .gguf file.")]
EmbedderOption = Annotated[str | None, typer.Option("--embedder", help="sentence-transformers name or folder.")]
KeepOption = Annotated[
    float | None, typer.Option("--keep", "-k", help="Share of MLP neurons kept, above 0, at most 1.")
]
MaxLossOption = Annotated[
    float | None,
    typer.Option(help="Instead of --keep: the least keep with this expected NLL rise, nats per token; calibrated."),
]
PolicyOption = Annotated[str, typer.Option("--policy", "-p", help="auto, similarity, stability, hybrid or dense.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
VersionOption = Annotated[
    bool, typer.Option("--version", callback=lambda asked: _version() if asked else None, is_eager=True)
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No talk on stderr.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, …")]
DtypeOption = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16, int8 or int4.")]
TrainDtypeOption = Annotated[str, typer.Option("--dtype", help="auto, float32 or bfloat16.")]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        help="What the LM may take on its device, such as 12GiB; the rest stays on disk. [default: all of it]"
    ),
]
BundlesOption = Annotated[Path | None, typer.Option(help="Folder for that rest. [default: ~/.cache/coreinfer/bundles]")]
PromptsArgument = Annotated[list[str] | None, typer.Argument(help="Prompts. Without any: --file, or lines of stdin.")]
RefreshOption = Annotated[
    str | None,
    typer.Option(
        help="Choose neurons again after so many tokens, or auto: when the text has doubled. [default: never]"
    ),
]
TextColumnOption = Annotated[
    str | None, typer.Option(help="[default: text; or prompt, content, … where only one can be meant]")
]
FileOption = Annotated[Path | None, typer.Option("--file", "-f", help=FILE_HELP)]


def _version() -> None:
    import coreinfer

    print(f"coreinfer {coreinfer.__version__}")
    raise typer.Exit


def say(text: str, quiet: bool) -> None:
    """Talk: a line on stderr."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def say_if_files(prompts: Sequence[str] | None, quiet: bool) -> None:
    """Which prompts are names of files, and are read as text all the same: whoever meant the content learns how."""
    for name in filter(os.path.isfile, prompts or ()):
        path = shlex.quote(name)
        say(
            f"{name!r} is a file, but is read as the prompt's text: give --file {path} for a prompt from each of its "
            f'lines, or "$(cat {path})" for all of it as one prompt',
            quiet,
        )


def open_artifact(artifact: Path | None, dtype: str, policy: str = "auto", keeps: Sequence[float] = ()) -> "Artifact":
    """Check the options, then open the artifact; torch is not imported."""
    from coreinfer.artifact import Artifact
    from coreinfer.paths import DEMO_CLUSTERS
    from coreinfer.settings import Dtype, Policy, check_keep, one_of

    one_of("--policy", policy, get_args(Policy))
    one_of("--dtype", dtype, get_args(Dtype))
    for keep in keeps:
        check_keep(keep, "--keep")
    return Artifact.load(artifact or DEMO_CLUSTERS)


def open_with_keep(
    artifact: Path | None, dtype: str, policy: str, keep: float | None, max_loss: float | None, quiet: bool
) -> tuple["Artifact", float | None]:
    """The same, and the keep that ``--keep`` or ``--max-loss`` asks for; None for the artifact's own. A loss beyond an
    end of the artifact's curve is said to be.
    """
    if keep is not None and max_loss is not None:
        raise CoreInferError(
            f"--keep {keep:g} and --max-loss {max_loss:g} both say what to keep: leave out one of them"
        )
    if max_loss is not None and policy != "auto":
        raise CoreInferError(
            f"--max-loss {max_loss:g} reads a curve that was measured for auto: leave out --policy {policy}, or give "
            "--keep instead"
        )
    opened = open_artifact(artifact, dtype, policy, [keep] if keep is not None else [])
    if max_loss is not None:
        from coreinfer.output import beyond_the_curve

        keep = opened.keep_for(max_loss)
        if line := beyond_the_curve(opened.calibration["curve"], max_loss, keep):
            say(line, quiet)
    return opened, keep


def make_engine(
    opened: "Artifact", model: str | None, embedder: str | None, device: str, dtype: str,
    memory: str | None = None, bundles: Path | None = None, quiet: bool = True, embeds: bool = True,
) -> "Engine":  # fmt: skip
    """The engine of a command line that was found to be right: this imports torch, and what ``embeds`` if need be."""
    from coreinfer.memory.sizes import parse_size

    if memory is not None:
        parse_size(memory)
    from coreinfer.libraries import load_libraries

    load_libraries(quiet, model, embedder, embeds)
    from coreinfer.engine import Engine
    from coreinfer.progress import logged, unseen

    kept = {"memory": memory, "bundles": bundles, "stage": unseen if quiet else logged}
    return Engine(opened, model, embedder, device=device, dtype=dtype, **kept)  # type: ignore[arg-type]


def parse_clusters(text: str) -> int | None:
    """``--clusters``: a number, or None for auto."""
    if text == "auto":
        return None
    with suppress(ValueError):
        if (number := int(text)) >= 1:
            return number
    raise CoreInferError(f"--clusters is {text!r}: give a whole number of at least 1, or auto")


def check_build(
    statistic: str, mode: str, token_fraction: float, keep: float, examples: int, seed: int, dtype: str
) -> None:
    """Refuse impossible options of a build by their names, before anything heavy is imported."""
    from coreinfer.settings import CountMode, Dtype, StatisticKind, at_least, check_keep, check_seed, one_of

    one_of("--statistic", statistic, (*get_args(StatisticKind), "auto"))
    one_of("--mode", mode, get_args(CountMode))
    check_keep(token_fraction, "--token-fraction")
    check_keep(keep, "--keep")
    at_least("--examples", examples, 0)
    check_seed(seed, "--seed")
    one_of("--dtype", dtype, get_args(Dtype))


@contextmanager
def line_ended(wanted: bool) -> Iterator[None]:
    """End the line of a text that Ctrl-C cut short."""
    try:
        yield
    except KeyboardInterrupt:
        if wanted:
            print(flush=True)
        raise


def named_after(dataset: str) -> Path:
    """Where a build's artifact goes: a folder below artifacts/, named after the file, the folder or the Hub dataset.

    A glob is named after the folder that it searches.
    """
    path = Path(dataset).expanduser()
    if not path.exists():
        path = Path(*takewhile(lambda part: not set(part) & set("*?["), path.parts))
    name = path.resolve().name
    return Path("artifacts") / ((Path(name.removesuffix(".gz")).stem if path.is_file() else name) or "clusters")


def run(app: typer.Typer) -> None:
    """Run a verb. Bad input is one line and exit code 2, Ctrl-C is 130; a reader who closed the pipe is no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 still shows the rest
    try:  # not command.main: it ends a run with other codes and more lines
        with arriving():
            command = typer.main.get_command(app)
            with command.make_context("coreinfer", sys.argv[1:] or ["--help"]) as context:
                command.invoke(context)
        sys.stdout.flush()
        return
    except typer.Exit as stop:
        code, line = stop.exit_code, ""
    except (KeyboardInterrupt, typer.Abort):
        code, line = 130, "interrupted"
    except CoreInferError as error:
        code, line = 2, f"error: {error}"
    except BrokenPipeError:
        code, line = 0, ""
        _close_stdout()
    except OSError as error:
        remedy = "free some space" if error.errno in FULL else "check that place"
        code, line = 2, f"error: cannot read or write ({error}): {remedy}, then run it again"
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
