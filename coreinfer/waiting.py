"""What takes long is said, and only then: whether it will cannot be known before."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

log = logging.getLogger(__name__)


@contextmanager
def said_if_long(what: str, patience: float, say: Callable[[str], Any] = log.info) -> Iterator[None]:
    """Say ``what`` is being done once it has taken ``patience`` seconds."""
    timer = Timer(patience, say, (what,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
