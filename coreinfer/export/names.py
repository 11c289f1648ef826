"""The names of targets and of kinds of weights: what the command line checks before anything heavy is imported."""

from importlib.util import find_spec

from coreinfer.errors import CoreInferError
from coreinfer.settings import one_of

MODELS = ("transformers", "gguf", "onnx", "safetensors")
SETS = {"numpy": "sets.bits", "arrow": "sets.arrow", "json": "sets.json"}  # and the file of each
INDEX = "models.json"  # in a folder of several models: which cluster lies where
KINDS = {  # of weights; the first unless another is asked for
    "transformers": ("bf16", "f32"), "safetensors": ("bf16", "f32"), "gguf": ("bf16", "f32", "q8_0", "q4_0"),
    "onnx": ("f32",),
}  # fmt: skip


def kind_of(target: str, weights: str | None) -> str:
    """The kind of weights that a target of models gets.

    Raises:
        CoreInferError: no target, or a kind that it does not have.
    """
    one_of("--to", target, (*MODELS, *SETS))
    if target in SETS:
        if weights is not None:
            raise CoreInferError(f"--weights {weights} has no place in neuron sets: leave it out, or export a model")
        return ""
    one_of(f"--weights of {target}", weights or KINDS[target][0], KINDS[target])
    return weights or KINDS[target][0]


def check_package(target: str) -> None:
    """
    Raises:
        CoreInferError: what writes for this target is not installed.
    """
    package = {"gguf": "gguf", "onnx": "onnx"}.get(target)
    if package is not None and find_spec(package) is None:
        raise CoreInferError(f"--to {target} needs the package {package}: pip install 'coreinfer[{package}]'")
