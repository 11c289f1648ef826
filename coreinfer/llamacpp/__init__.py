"""llama.cpp as a runtime: the prompt runs dense in Transformers, what follows in llama.cpp on a sliced GGUF file.

In reading order: ``handover`` (a prefill's cache as llama.cpp keeps its own), ``files`` (the written files, a bounded
folder of them), ``session`` (llama.cpp itself: a loaded file, one token a call) and ``decoder`` (all of it behind the
methods of ``decode.decoder.Decoder``). Needs the extra ``coreinfer[llama]``.
"""

from importlib.util import find_spec

from coreinfer.errors import CoreInferError


def missing(why: str = "") -> CoreInferError:
    """What to say where the bindings are not there, or cannot be loaded."""
    return CoreInferError(
        f"llama.cpp needs the package llama-cpp-python{why}: pip install 'coreinfer[llama]', with a C++ compiler"
    )


def check_installed() -> None:
    """Before anything heavy is loaded.

    Raises:
        CoreInferError: the extra is not installed.
    """
    if find_spec("llama_cpp") is None:
        raise missing()
