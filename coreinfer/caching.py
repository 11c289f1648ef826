"""Where files lie that can be made again."""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from coreinfer.errors import CoreInferError, in_words

ABANDONED = 24 * 3600  # seconds after which nobody still writes an unfinished file
REMEDY = "name another folder in COREINFER_CACHE"


def cache_folder(name: str) -> Path:
    """``name`` in the folder that COREINFER_CACHE names, or in the user's cache, ``$XDG_CACHE_HOME/coreinfer``.

    Raises:
        CoreInferError: no home folder to put it in.
    """
    named, shared = os.environ.get("COREINFER_CACHE"), os.environ.get("XDG_CACHE_HOME", "")
    try:
        if named:
            return Path(named).expanduser() / name
        return (Path(shared) if os.path.isabs(shared) else Path.home() / ".cache") / "coreinfer" / name
    except RuntimeError as error:
        raise CoreInferError(f"no place for written files ({in_words(error)}): {REMEDY}") from error


def is_abandoned(path: Path) -> bool:
    """Whether whoever wrote this was killed, a day ago or more."""
    with suppress(OSError):  # another process tidied
        return time.time() - path.stat().st_mtime > ABANDONED
    return False


def remove(path: Path) -> None:
    """A file or folder, unless another process was first, or on Windows still reads it."""
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
