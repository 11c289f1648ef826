"""``coreinfer merge``: the passes of several machines become an artifact."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from coreinfer.cli_options import JsonOption, QuietOption
from pipeline.verbs.build import LogOption, MaxBadOption, StatsOption
from pipeline.verbs.telling import built, tell


def merge(
    folder: Annotated[Path, typer.Argument(help="The --work of passes that were run on all machines.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the artifact goes.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing artifact.")] = False,
    max_bad_shards: MaxBadOption = 0,
    log: LogOption = None,
    stats: StatsOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make the artifact of what several machines embedded and recorded in a folder, with the settings they were given.

    Parts that are missing, or were made with other settings, models, versions or processors, are named.
    """
    from coreinfer.places import check_file
    from pipeline.folder import check_output
    from pipeline.joblog import Log
    from pipeline.recorded import check_recorded
    from pipeline.shards.ways import Ways

    ways = Ways(bad_shards=max_bad_shards, log=Log(log))
    check_recorded(folder)
    if stats is not None:
        check_file(stats, "choose another --stats")
    check_output(output, overwrite)
    from coreinfer.libraries import load_libraries

    load_libraries(quiet)
    from coreinfer.progress import stages
    from pipeline.merge import merge as merged
    from pipeline.shards.looking import look

    look(folder)
    with stages(quiet) as shown, ways.log as kept:
        row = built(partial(merged, folder), ways, output, overwrite, kept.shown(shown), quiet)
    tell(row, output, stats, as_json, quiet)
