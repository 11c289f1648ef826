"""What was measured on held-out texts, kept step by step: a build that is stopped while it measures goes on there, and
another --keep measures again only what depends on it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from pipeline.data import Arrays, Remember
from pipeline.shards.arrays import read_arrays, write_arrays
from pipeline.shards.store import Facts, Store, key_of


@dataclass(frozen=True)
class Measured:
    """A store of measurements on one set of texts with one model.

    Attributes:
        writing: what a failing disk is reported by.
        reused: called for each step that was there.
    """

    store: Store
    writing: Callable[[], AbstractContextManager[None]]
    reused: Callable[[], None]

    def under(self, facts: Facts) -> Remember:
        """For steps whose numbers ``facts`` decide, beside those of the store and what each step adds."""

        def remember(step: str, more: Facts, make: Callable[[], Arrays]) -> Arrays:
            key = key_of({"store": self.store.key, "step": step, "of": facts, "and": more})
            path = self.store.at(f"{step.replace(' ', '-')}-{key[:32]}")
            if (found := read_arrays(path, key)) is not None:
                self.reused()
                return found[1]
            made = make()
            with self.writing():
                path.parent.mkdir(parents=True, exist_ok=True)  # others may tidy, since nobody claims it
                write_arrays(path, key, {"step": step}, made)
            return made

        return remember
