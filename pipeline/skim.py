"""What stays in memory of texts that are read once: how much they are, some from everywhere, and the longest."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappush, heappushpop

from pipeline.passages import BLOCK
from pipeline.texts import evenly

SOME = LONGEST = BLOCK  # texts that stay


@dataclass
class Skim:
    """Of the texts that were read: ``bytes`` of all in UTF-8, ``SOME`` of them evenly over all, in their order, and the
    ``LONGEST``, each behind its bytes, as a heap. Memory does not grow with their number.
    """

    bytes: int = 0
    some: list[str] = field(default_factory=list)
    longest: list[tuple[int, str]] = field(default_factory=list)

    def read(self, texts: Iterable[str]) -> None:
        """All of them."""
        self.some = evenly(self._noted(texts), SOME)

    @property
    def telling(self) -> list[str]:
        """Texts among which are those of the most tokens: the longest, and others for what has many tokens a byte."""
        return [text for _, text in self.longest] + self.some

    def _noted(self, texts: Iterable[str]) -> Iterator[str]:
        for text in texts:
            size = len(text.encode())
            self.bytes += size
            if len(self.longest) < LONGEST:
                heappush(self.longest, (size, text))
            else:
                heappushpop(self.longest, (size, text))
            yield text
