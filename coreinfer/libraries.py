"""The libraries that nearly every verb needs and that take seconds to import; for the command line alone."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from coreinfer.cli_options import say
from coreinfer.hub import embedder_place, model_place
from coreinfer.waiting import said_if_long

PATIENCE = 0.5  # seconds; half a second of Python and Typer has gone by before


def check_models(model: str | None, embedder: str | None = None) -> None:
    """Refuse models that are not there before anything heavy is imported.

    Raises:
        CoreInferError: the model or embedder is not there.
    """
    if model is not None:
        model_place(model)
    if embedder is not None:
        embedder_place(embedder)


def load_libraries(quiet: bool, model: str | None = None, embedder: str | None = None, embeds: bool = True) -> None:
    """Import torch, transformers and, for a verb that ``embeds``, sentence-transformers; it is said if that takes long.
    They are kept from talking themselves.

    Raises:
        CoreInferError: as ``check_models``, which is done first.
    """
    check_models(model, embedder)
    with said_if_long("loading libraries and models", PATIENCE, lambda text: say(text, quiet)), uncollected():
        import coreinfer.models  # noqa: F401

        if embeds:
            import sentence_transformers  # noqa: F401
    quiet_libraries()


@contextmanager
def uncollected() -> Iterator[None]:
    """Import without the garbage collector, which would look through all that was imported again and again: a fifth of
    the time. What was imported stays, so no later collection looks at it either, nor the last one, at the end.
    """
    if "torch" in sys.modules or not gc.isenabled():  # once: what else there is by then may well be garbage
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def quiet_libraries() -> None:
    """Keep the talk of libraries (weight-loading bars, advice) out of ours."""
    import logging as standard

    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    for name in ("sentence_transformers", "datasets", "huggingface_hub"):
        standard.getLogger(name).setLevel(standard.ERROR)
