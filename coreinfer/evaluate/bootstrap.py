"""PURE: 95% intervals of means over texts, by the bootstrap: texts drawn with replacement, seeded, percentiles.

All columns are resampled by the same draws, so the interval of a difference of two columns is a paired one.
"""

import numpy as np
from numpy.typing import NDArray

DRAWS, TOGETHER = 2000, 100
LEVEL = (0.025, 0.975)


def intervals(values: NDArray[np.float64], seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Ends of the intervals of the columns' means; ``values`` (n texts, m) -> (m,) twice. None for fewer than two."""
    count = len(values)
    if count < 2:
        return None
    rng, means = np.random.default_rng(seed), []
    for _ in range(DRAWS // TOGETHER):  # how often each text is drawn is all that a mean needs
        times = rng.multinomial(count, np.full(count, 1 / count), TOGETHER)
        means.append(times @ values / count)
    low, high = np.quantile(np.concatenate(means), LEVEL, axis=0)
    return low, high
