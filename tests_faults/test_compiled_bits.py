"""What torch's own compiler makes of a model's layers on this machine, recorded in different orders."""

from shutil import which

import numpy as np
import pytest
from numpy.typing import NDArray
from recording import recorder, shares, tiny

SIZES = [(5, 48), (1, 32), (7, 16), (2, 64)]


@pytest.mark.skipif(which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_bits_do_not_depend_on_what_came_before() -> None:
    """Whichever sizes a process meets first; and they are close to what is not compiled."""
    found = list[list[NDArray[np.float64]]]()
    for order in (1, -1):
        ours = recorder(tiny("Llama")).compiled()
        found.append([shares(ours, *size) for size in SIZES[::order]][::order])
    plain = [shares(recorder(tiny("Llama")), *size) for size in SIZES]
    for one, other, truth in zip(*found, plain, strict=True):
        assert np.array_equal(one, other)
        assert np.allclose(one, truth, rtol=1e-3)
