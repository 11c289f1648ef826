"""What the end-to-end tests ask the engine, and when two answers are the same."""

import numpy as np

from coreinfer.policy import Prediction

PROMPT = "Every living cell is wrapped in a plasma membrane, a film that"
FRENCH = "Les élèves de la classe ont chanté une vieille chanson près de la rivière, puis"


def same_set(a: Prediction, b: Prediction) -> bool:
    assert a.neurons is not None
    assert b.neurons is not None
    return all(np.array_equal(x, y) for x, y in zip(a.neurons.layers, b.neurons.layers, strict=True))
