"""Numba finds what it compiled by the file that a function is in: what else went into it must be named there."""

import hashlib
from types import ModuleType

import pytest

from coreinfer.decode import compiled, compiled_int, team, tiles
from coreinfer.quantised import packed


def hash_of(*modules: ModuleType) -> str:
    content = hashlib.sha256()
    for module in modules:
        assert module.__file__ is not None
        with open(module.__file__, "rb") as file:
            content.update(file.read())
    return content.hexdigest()[:12]


@pytest.mark.parametrize(
    ("module", "sources"),
    [(compiled, (tiles, team)), (compiled_int, (tiles, packed, compiled, team))],
    ids=["compiled", "int"],
)
def test_loops_name_what_they_are_made_of(module: ModuleType, sources: tuple[ModuleType, ...]) -> None:
    """On a failure: put the hash that is shown into ``MADE_OF`` of that file, ``compiled`` first."""
    assert hash_of(*sources) == module.MADE_OF
