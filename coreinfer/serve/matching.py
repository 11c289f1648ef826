"""Prompts -> their clusters, in a thread beside the one that decodes: an embedding needs no language model."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from coreinfer.match import Match
from coreinfer.serve.jobs import Asked, Job, Matched

if TYPE_CHECKING:
    from coreinfer.engine import Engine


class Matching:
    """In the order in which they came. ``apart``: False where the engine's thread does it itself, as for a GPU, whose
    steps are captured while no other thread may launch anything.
    """

    def __init__(self, apart: bool) -> None:
        self._thread = ThreadPoolExecutor(1, "coreinfer-match") if apart else None

    def begin(self, job: Job, engine: "Callable[[], Engine]") -> None:
        """All prompts of a job; ``engine``: which one, asked when a prompt's turn comes: there may be another by then.

        Raises:
            RuntimeError: the system has no more threads.
        """
        if self._thread is not None:
            job.matches = [self._thread.submit(_matched, job, asked, engine) for asked in job.prompts]

    def end(self) -> None:
        """What has not begun is not done."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)


def _matched(job: Job, asked: Asked, engine: "Callable[[], Engine]") -> Matched | None:
    return None if job.gone else ((by := engine()), by.match([asked.words])[0])


def is_matched(job: Job, number: int) -> bool:
    """Whether nothing is waited for."""
    return not job.matches or job.matches[number].done()


def match_of(job: Job, number: int, engine: "Engine") -> Match | None:
    """Of the ``number``-th prompt; None where nobody did it, or another artifact's engine.

    Raises:
        Exception: whatever the embedder raised.
    """
    found = job.matches[number].result() if job.matches else None
    return found[1] if found is not None and found[0] is engine else None
