"""Threads that help with a step's loops: whoever is there takes the next part of one.

Who leads does what nobody else has taken, so a helper that another program has pushed from its processor is waited for
only if it was amid a part. (OpenMP's threads all have to come: beside one busy program on two cores, a step by them
took ten times as long.) Helpers look for work for a while, then sleep until there is some. Loops let the interpreter's
lock go, so that an event loop goes on beside them.

Nothing here knows what a part is. Its numbers and addresses lie on the team's board from ``JOB`` on.
"""

import os
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

WORD, DONE, JOB, SIZE = 0, 8, 16, 48  # places on a board: what others write lies in other lines of the cache
FEW = 1 << 15  # parts of a loop, at most; the word has room for as many that are asked for in vain
COUNT = (1 << 16) - 1
PATIENCE = 1 << 16  # looks for work before a helper sleeps: a millisecond
LOOKS = 64  # before others may run: a microsecond
COMPILED: dict[str, Any] = {"cache": True, "boundscheck": False}


def _place(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The address of board[i], the first arguments."""
    array = context.make_array(signature.args[0])(context, builder, value=args[0])
    return cgutils.get_item_pointer(context, builder, signature.args[0], array, [args[1]])


@intrinsic
def seen(typing: Any, board: Any, i: Any) -> Any:
    """board[i], and all that was written before it."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_place(context, builder, signature, args), "acquire", 8)

    return types.int64(board, i), code


@intrinsic
def told(typing: Any, board: Any, i: Any, x: Any) -> Any:
    """board[i] = x, after all that was written before."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[2], _place(context, builder, signature, args), "release", 8)
        return context.get_dummy_value()

    return types.void(board, i, types.int64), code


@intrinsic
def added(typing: Any, board: Any, i: Any, x: Any) -> Any:
    """board[i] += x, at once -> what it was."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _place(context, builder, signature, args), args[2], "seq_cst")

    return types.int64(board, i, types.int64), code


@intrinsic
def pointer(typing: Any, address: Any) -> Any:
    """An address as Numba's ``carray`` takes it."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), code


@intrinsic
def after_others(typing: Any) -> Any:
    """Let another thread run that waits for this processor (POSIX's sched_yield; nothing on Windows)."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if os.name == "posix":
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), code


@njit(**COMPILED)
def offer(board: Any, parts: int) -> None:
    """Let ``parts`` of the job that is on the board be taken; one thread at a time does. One word holds the offer's
    number, its parts and the next of them: who takes one of an offer that was not there a moment ago does that, not
    what it had seen.
    """
    told(board, DONE, 0)
    told(board, WORD, ((seen(board, WORD) >> 32) + 1) << 32 | parts << 16)


@njit(**COMPILED)
def taken(board: Any) -> int:
    """The next part, or -1."""
    word = seen(board, WORD)
    if (word & COUNT) >= ((word >> 16) & COUNT):
        return -1
    word = added(board, WORD, 1)
    part = word & COUNT
    return part if part < ((word >> 16) & COUNT) else -1


@njit(**COMPILED)
def did(board: Any) -> None:
    """A part is done."""
    added(board, DONE, 1)


@njit(**COMPILED)
def looked(times: int) -> int:
    """Once more; now and then others may run first."""
    times += 1
    if times % LOOKS == 0:
        after_others()
    return times


@njit(**COMPILED)
def all_done(board: Any, parts: int) -> None:
    """Once it is so."""
    looks = 0
    while seen(board, DONE) < parts:
        looks = looked(looks)


class Team:
    """``helps`` (board, patience), compiled, does parts as long as there are any. A forked process has no helpers of
    its parent's: there, who leads does all.
    """

    def __init__(self, threads: int, helps: Callable[[Any, int], None]) -> None:
        self.board = np.zeros(SIZE, np.int64)
        self._turn, self._asleep = Lock(), list[Event]()
        self._helps = helps
        helps(self.board, 0)  # compiled here: what fails is told to who asked
        for _ in range(threads - 1):
            self._asleep.append(Event())
            Thread(target=self._help, args=(self._asleep[-1],), daemon=True, name="coreinfer-helper").start()

    def _help(self, wake: Event) -> None:
        while True:
            self._helps(self.board, PATIENCE)
            wake.clear()  # of who leads and does not see it, nothing is expected but that it does all parts
            wake.wait()

    def share(self, led: Callable[..., None], alone: Callable[..., None], *given: Any) -> None:
        """led(board, …) with helpers, or where another thread leads, ``alone``."""
        if not self._turn.acquire(blocking=False):
            alone(*given)
            return
        try:
            for wake in self._asleep:
                if not wake.is_set():
                    wake.set()
            led(self.board, *given)
        finally:
            self._turn.release()


_teams, _made = dict[tuple[int, Callable[[Any, int], None]], Team](), Lock()


def team(threads: int, helps: Callable[[Any, int], None]) -> Team:
    """The process's."""
    with _made:
        if (threads, helps) not in _teams:
            _teams[threads, helps] = Team(threads, helps)
        return _teams[threads, helps]
