"""Numba finds what it compiled by the file that a function is in: what else went into it must be named there."""

import hashlib
from types import ModuleType

import pytest

from coreinfer.decode import compiled, compiled_heads, compiled_int, compiled_int_shared, compiled_shared, team, tiles
from coreinfer.quantised import packed


def hash_of(*modules: ModuleType) -> str:
    content = hashlib.sha256()
    for module in modules:
        assert module.__file__ is not None
        with open(module.__file__, "rb") as file:
            content.update(file.read())
    return content.hexdigest()[:12]


MADE_OF = {
    compiled: (tiles,),
    compiled_heads: (compiled,),
    compiled_shared: (tiles, team, compiled, compiled_heads),
    compiled_int: (tiles, packed, compiled),
    compiled_int_shared: (packed, team, compiled_int, compiled_shared),
}


@pytest.mark.parametrize("module", MADE_OF, ids=lambda module: module.__name__)
def test_loops_name_what_they_are_made_of(module: ModuleType) -> None:
    """On a failure: put the hash that is shown into ``MADE_OF`` of that file, the first one first."""
    assert hash_of(*MADE_OF[module]) == module.MADE_OF
