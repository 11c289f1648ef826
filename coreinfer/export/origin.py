"""Whether neuron sets of a file are a model's."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from coreinfer.errors import CoreInferError
from coreinfer.export.bits import Origin, SetFile
from coreinfer.export.views import Listed
from coreinfer.identity import setup_of
from coreinfer.models import find_mlps, fingerprint, load_model


def origin_of(model: Any, tokenizer: Any) -> Origin:
    """What sets of this model say that they are of."""
    return Origin(fingerprint(model), setup_of(model, tokenizer))


def check_origin(sets: SetFile, name: str, model: Any, tokenizer: Any) -> None:
    """
    Raises:
        CoreInferError: the sets are another model's, or of other layers.
    """
    _check(sets.path, (sets.layers, sets.width), sets.origin, name, model, tokenizer)


def with_origin(listed: Listed, path: Path, name: str) -> Listed:
    """A list, checked to be of the model ``name``; if it does not say whose it is, it says so now.

    Raises:
        CoreInferError: the model cannot be loaded, or the list is another's.
    """
    model, tokenizer = load_model(name)
    found = _check(path, (listed.layers, listed.width), listed.origin, name, model, tokenizer)
    return listed if listed.origin is not None else replace(listed, origin=found)


def _check(path: Path, shape: tuple[int, int], origin: Origin | None, name: str, model: Any, tokenizer: Any) -> Origin:
    mlps, found = find_mlps(model), origin_of(model, tokenizer)
    if (len(mlps), mlps[0].width) != shape:
        raise CoreInferError(
            f"{path} is for {shape[0]} layers of {shape[1]} neurons, {name!r} has {len(mlps)} of {mlps[0].width}: give "
            "the model that the sets are of"
        )
    if origin is not None and (found.weights, found.setup) != (origin.weights, origin.setup):
        other = "weights" if found.weights != origin.weights else "settings or another tokenizer"
        raise CoreInferError(f"{path} holds sets of a model with other {other} than {name!r}: give that model")
    return found
