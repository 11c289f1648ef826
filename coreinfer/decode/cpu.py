"""A CPU's step: by compiled loops where Numba is installed, else in torch."""

from typing import TYPE_CHECKING

from coreinfer.decode.lean import LeanStep
from coreinfer.decode.network import Network
from coreinfer.decode.state import Feed, State
from coreinfer.errors import CoreInferError, in_words
from coreinfer.neurons import NeuronSet

if TYPE_CHECKING:
    from coreinfer.decode.copies import Memory
    from coreinfer.decode.swift import SwiftStep


def cpu_step(
    network: Network, state: State, neurons: NeuronSet, feed: Feed | None = None, must: bool = False,
    spare: "list[Memory] | None" = None,
) -> "SwiftStep | LeanStep":  # fmt: skip
    """``spare``: as ``Copies``'.

    Raises:
        CoreInferError: no Numba, where it ``must`` be: torch's step holds small matrices in float32, beside these,
            which a memory budget has no room for.
    """
    try:
        from coreinfer.decode.swift import SwiftStep
    except (ImportError, RuntimeError) as error:  # no Numba, or no folder where it may keep what it compiled
        if must:
            raise CoreInferError(
                f"a memory budget on a CPU needs Numba, which cannot be used here ({in_words(error)}): install it, or "
                "leave out --memory"
            ) from error
        return LeanStep(network, state, neurons, feed)
    return SwiftStep(network, state, neurons, feed, spare)
