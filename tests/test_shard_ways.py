"""How a build may run, and what no build can do at once."""

from pathlib import Path
from typing import Any

import pytest

from coreinfer import CoreInferError
from pipeline.shards.plan import Part
from pipeline.shards.ways import Ways

TWO = Part(0, 2)
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"workers": 0}, "--workers is 0"), ({"shard_passages": 100}, "--shard-passages is 100: give a multiple of 512"),
    ({"only": "embed"}, "add the --work FOLDER"), ({"part": TWO}, "add the --work FOLDER"),
    ({"work": Path("w"), "part": TWO}, "add --pass embed"), ({"work": Path("w"), "only": "all"}, "--pass is 'all'"),
    ({"work": Path("w"), "cache": False}, "leave out one of them"),
    ({"engine": "dask"}, "--engine is 'dask': choose one of local, ray"), ({"address": "auto"}, "add --engine ray"),
    ({"bad_shards": -1}, "--max-bad-shards is -1"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "words"), REFUSED)
def test_ways_that_contradict_each_other(given: dict[str, Any], words: str) -> None:
    with pytest.raises(CoreInferError, match=words):
        Ways(**given)
