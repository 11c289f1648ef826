"""The parts that several machines made become an artifact, which is the bytes of a build on one."""

import os
from collections.abc import Callable
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

from coreinfer.errors import CoreInferError
from coreinfer.progress import Stage, unseen
from pipeline.build import Report, build_clusters
from pipeline.recorded import recorded
from pipeline.shards.ways import Ways


def merge(
    folder: Path,
    output: Path,
    overwrite: bool = False,
    stage: Stage = unseen,
    say: Callable[[str], Any] = lambda text: None,
    ways: Ways | None = None,
) -> Report:
    """Make the artifact of the passes that were run in ``folder``, with the settings that they were given.

    It reads their dataset again, from where they did, for terms, examples and held-out texts, and refuses to go on
    where that is another by now.

    Raises:
        CoreInferError: parts are missing, or were made with other settings, versions, models or processors; they are
            named. Or as a build.
    """
    made = recorded(folder)
    if not made.where.is_dir():
        raise CoreInferError(
            f"the passes in {folder} were started in {made.where}, which is not there: merge on a machine that has it"
        )
    here = replace(ways or Ways(), work=folder.absolute(), complete=True, shard_passages=made.shard_passages)
    output = Path(os.path.abspath(output))
    with chdir(made.where):
        return build_clusters(made.settings, output, overwrite, stage, say, here)
