"""coreinfer: run a language model on only the neurons that a prompt needs.

>>> from coreinfer import Engine
>>> engine = Engine.load()                      # the embedded default; or Engine.load("artifacts/mine")
>>> engine.predict("User: a table for two").cluster
>>> engine.generate("User: a table for two", keep=0.4).text

Names load on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Artifact": "artifact",
    "CoreInferError": "errors",
    "Engine": "engine",
    "NeuronSet": "neurons",
    "StatisticSettings": "settings",
    "apply": "applying",
    "load_model": "models",
    "slim": "slimming",
}
__all__ = ["Artifact", "CoreInferError", "Engine", "NeuronSet", "StatisticSettings", "apply", "load_model", "slim"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'coreinfer' has no attribute {name!r}")
    return getattr(import_module(f"coreinfer.{_HOME[name]}"), name)
