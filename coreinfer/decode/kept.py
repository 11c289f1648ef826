"""Steps of the sets that ran last, and the memory of those that left."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from coreinfer.decode.copies import Memory


class Runs(Protocol):
    """One token a call, from the state's token and position to the next ones."""

    def run(self) -> None: ...


class Kept:
    """The steps, the one that ran longest ago first. ``spare``: memory that the next set's weights may be copied to."""

    def __init__(self) -> None:
        self._steps: OrderedDict[Hashable, Runs] = OrderedDict()
        self.spare: list[Memory] = []

    def __contains__(self, key: Hashable) -> bool:
        return key in self._steps

    def put(self, key: Hashable, step: Runs) -> None:
        """As the newest."""
        self._steps[key] = step

    def take(self, key: Hashable) -> Runs:
        """It runs now: it is the last to leave."""
        self._steps.move_to_end(key)
        return self._steps[key]

    def make_room(self, most: int) -> None:
        """For one more, so that there are ``most``."""
        while len(self._steps) >= most:
            _, step = self._steps.popitem(last=False)
            copies = getattr(step, "copies", None)  # compiled loops' alone
            if copies is not None and copies.memory.nbytes:
                self.spare = [copies.memory]

    def clear(self) -> None:
        """Let all go, and what they held."""
        self._steps.clear()
