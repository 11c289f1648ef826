"""``coreinfer bench``: how fast this machine decodes, beside what else it could decode with."""

from pathlib import Path
from typing import Annotated

import typer

from coreinfer.cli_options import DeviceOption, DtypeOption, ModelOption, QuietOption, say


def bench(
    model: ModelOption = None,
    shape: Annotated[
        str | None, typer.Option(help="A random model instead: llama-3.1-8b, llama-3.2-1b, opt-6.7b, …")
    ] = None,
    keep: Annotated[
        list[float] | None, typer.Option("--keep", "-k", help="May be given again. [default: 1 0.4]")
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Of the prompt, which runs dense.")] = 128,
    new_tokens: Annotated[int, typer.Option("--max-new-tokens", "-n", help="Decoded in each round.")] = 64,
    context: Annotated[int, typer.Option(help="Positions that the cache holds.")] = 1024,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for bench.json and bench.svg.")] = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "auto",
    quiet: QuietOption = False,
) -> None:
    """Measure decoding against the memory's limit and against Transformers, in one run; JSON on the last line."""
    from typing import get_args

    from coreinfer.bench.plan import Plan
    from coreinfer.errors import CoreInferError
    from coreinfer.settings import Dtype, check_device, check_keep, one_of

    if model is not None and shape is not None:
        raise CoreInferError(f"--model {model} and --shape {shape} both say what to measure: leave out one of them")
    plan = Plan(prompt_tokens, new_tokens, context, tuple(check_keep(k, "--keep") for k in keep or (1.0, 0.4)))
    one_of("--dtype", dtype, get_args(Dtype))
    from coreinfer.bench.shapes import check_shape

    if shape is not None:
        check_shape(shape)
    check_device(device)
    from coreinfer.output import quiet_libraries

    if output is not None:
        from coreinfer.evaluate.saving import make_folder

        make_folder(output)
    quiet_libraries()
    from coreinfer.bench.report import last_line, save, table
    from coreinfer.bench.run import measure, opened

    some, name = opened(model, shape, dtype, device)
    made = measure(some, name, plan, lambda text: say(text, quiet), dtype)
    print("\n".join(table(made)))
    if output is not None:
        save(made, output)
    print(last_line(made))
