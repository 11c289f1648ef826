"""Whether neuron sets of a file are a model's."""

from typing import Any

from coreinfer.errors import CoreInferError
from coreinfer.export.bits import Origin, SetFile
from coreinfer.identity import setup_of
from coreinfer.models import find_mlps, fingerprint


def origin_of(model: Any, tokenizer: Any) -> Origin:
    """What sets of this model say that they are of."""
    return Origin(fingerprint(model), setup_of(model, tokenizer))


def check_origin(sets: SetFile, name: str, model: Any, tokenizer: Any) -> None:
    """
    Raises:
        CoreInferError: the sets are another model's, or of other layers.
    """
    mlps, found = find_mlps(model), origin_of(model, tokenizer)
    if (len(mlps), mlps[0].width) != (sets.layers, sets.width):
        raise CoreInferError(
            f"{sets.path} is for {sets.layers} layers of {sets.width} neurons, {name!r} has {len(mlps)} of "
            f"{mlps[0].width}: give the model that the sets are of"
        )
    if (found.weights, found.setup) != (sets.origin.weights, sets.origin.setup):
        other = "weights" if found.weights != sets.origin.weights else "settings or another tokenizer"
        raise CoreInferError(f"{sets.path} holds sets of a model with other {other} than {name!r}: give that model")
