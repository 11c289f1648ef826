"""One use of a model at a time: slimming swaps its modules and capturing hooks them, and two at once would spoil both.

A call that ends by itself (of an Engine) is waited for. A context that a caller opened may stay open for ever: whoever
comes meanwhile is refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock, get_ident
from weakref import WeakKeyDictionary

from torch import nn

from coreinfer.errors import CoreInferError


@dataclass
class _Turn:
    """Who uses a model now; ``ends``: whether that use ends by itself."""

    lock: Lock = field(default_factory=Lock)
    user: str = ""
    ends: bool = False
    thread: int = 0


_TURNS: WeakKeyDictionary[nn.Module, _Turn] = WeakKeyDictionary()
_NEW = Lock()


@contextmanager
def alone(decoder: nn.Module, user: str, ends: bool = False) -> Iterator[None]:
    """Hold the model of this decoder for ``user``, such as "slim", until the context is left.

    Raises:
        CoreInferError: a context that may stay open, or a call that this very thread is inside of, holds it.
    """
    with _NEW:
        turn = _TURNS.setdefault(decoder, _Turn())
    if not turn.lock.acquire(blocking=False):
        if not turn.ends or turn.thread == get_ident():
            raise CoreInferError(
                f"{turn.user} is already open on this model and {user} needs it alone: leave that context first"
            )
        turn.lock.acquire()
    turn.user, turn.ends, turn.thread = user, ends, get_ident()
    try:
        yield
    finally:
        turn.lock.release()
