"""``coreinfer bench``: how fast this machine decodes, beside what else it could decode with."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coreinfer.bench.plan import PROMPT
from coreinfer.cli_options import BundlesOption, DeviceOption, DtypeOption, MemoryOption, ModelOption, QuietOption

if TYPE_CHECKING:
    from coreinfer.bench.plan import Plan
    from coreinfer.bench.run import Measured


def bench(
    model: ModelOption = None,
    artifact: Annotated[
        Path | None,
        typer.Option("--artifact", "-a", help="For lossless drafts. [default: the demo's, of its model]"),
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="A random model instead: llama-3.1-8b, llama-3.2-1b, opt-6.7b, …")
    ] = None,
    keep: Annotated[
        list[float] | None, typer.Option("--keep", "-k", help="May be given again. [default: 1 0.4]")
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Of the prompt, which runs dense.")] = PROMPT,
    new_tokens: Annotated[int, typer.Option("--max-new-tokens", "-n", help="Decoded in each round.")] = 64,
    context: Annotated[
        int | None, typer.Option(help="Positions that the cache holds. [default: 1024, or the model's if it has fewer]")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Texts decoded at a time, besides one; 1 measures none. [default: 8]")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for bench.json and bench.svg.")] = None,
    page: Annotated[Path | None, typer.Option(help="A Markdown page to put this run's section into.")] = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "auto",
    memory: MemoryOption = None,
    bundles: BundlesOption = None,
    quiet: QuietOption = False,
) -> None:
    """Measure decoding against the memory's limit and against Transformers, in one run; JSON on the last line.

    With --memory: what a model costs that has to do with so much, and what it takes at the most.
    """
    from typing import get_args

    from coreinfer.bench.plan import Plan
    from coreinfer.errors import CoreInferError
    from coreinfer.settings import QUANTISED, Dtype, check_device, check_keep, one_of

    if (other := model or artifact) is not None and shape is not None:
        raise CoreInferError(f"{other} and --shape {shape} both say what to measure: leave out one of them")
    if artifact is not None and dtype in QUANTISED:
        raise CoreInferError(f"lossless decoding is measured on plain weights, not {dtype}: leave out --artifact")
    if memory is not None and any(x is not None for x in (shape, output, page, artifact, batch, context)):
        raise CoreInferError(
            "--memory measures a model on disk, one text at a time, and prints its table: leave out --shape, "
            "--artifact, --output, --page, --batch and --context"
        )
    keeps = keep or ((1.0, 0.4) if memory is None else (0.4,))
    texts = 8 if batch is None else batch
    plan = Plan(prompt_tokens, new_tokens, context, tuple(check_keep(k, "--keep") for k in keeps), texts)
    one_of("--dtype", dtype, get_args(Dtype))
    from coreinfer.libraries import load_libraries

    load_libraries(quiet, model, embeds=False)
    from coreinfer.bench.shapes import check_shape

    if shape is not None:
        check_shape(shape)
    check_device(device)
    if memory is not None:
        _under(memory, bundles, model or "demo", dtype, device, plan, quiet)
        return
    if page is not None:
        from coreinfer.places import check_file

        check_file(page, "choose another --page")
    from coreinfer.bench.report import last_line, save, table
    from coreinfer.evaluate.saving import folder_for
    from coreinfer.output import hear

    hear(quiet)
    with folder_for(output):
        made = _measured(model, artifact, shape, dtype, device, plan, quiet)
        print("\n".join(table(made)))
        if output is not None:
            save(made, output)
    if page is not None:
        from coreinfer.bench.page import write

        write(made, shlex.join(["coreinfer", *sys.argv[1:]]), page)
    print(last_line(made))


def _measured(
    model: str | None, artifact: Path | None, shape: str | None, dtype: str, device: str, plan: "Plan", quiet: bool
) -> "Measured":
    from coreinfer.bench.run import measure, measure_with_drafts, opened
    from coreinfer.progress import one_line
    from coreinfer.settings import QUANTISED

    if shape is None and (artifact is not None or model is None) and dtype not in QUANTISED:
        from coreinfer.engine import Engine
        from coreinfer.paths import DEMO_CLUSTERS

        engine = Engine.load(artifact or DEMO_CLUSTERS, model=model, device=device, dtype=dtype)
        with one_line(quiet) as stage:
            return measure_with_drafts(engine, plan, stage)
    some, name = opened(model, shape, dtype, device)
    with one_line(quiet) as stage:
        return measure(some, name, plan, stage, dtype)


def _under(memory: str, bundles: Path | None, model: str, dtype: str, device: str, plan: "Plan", quiet: bool) -> None:
    from coreinfer.memory.sizes import parse_size

    limit = parse_size(memory)
    from coreinfer.bench.under import last_line, measure_under, table
    from coreinfer.memory.budget import Budget
    from coreinfer.progress import one_line

    with one_line(quiet) as stage:
        made = measure_under(Budget(model, dtype, device, limit, bundles), plan, stage)
    print("\n".join(table(made)))
    print(last_line(made))
