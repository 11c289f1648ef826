"""How a build runs. Nothing of it changes what comes out, and none of it is stored in an artifact."""

from dataclasses import dataclass, field
from pathlib import Path
from platform import node
from typing import Literal

from coreinfer.caching import REMEDY, cache_folder
from coreinfer.errors import CoreInferError
from coreinfer.places import check_place
from coreinfer.settings import at_least
from pipeline.passages import BLOCK
from pipeline.shards.plan import Part, check_size

KEPT = f"{REMEDY}, or add --no-cache"
Pass = Literal["embed", "record"]
USUAL, GPU_USUAL = BLOCK, 8 * BLOCK  # passages of a shard: minutes of work, against which a commit takes no time


@dataclass(frozen=True)
class Ways:
    """Where and how the long stages run.

    Attributes:
        workers: processes on this machine; 1: this one.
        shard_passages: passages of a shard, a multiple of 512; None: as usual on the device.
        cache: whether what is done is kept in the user's cache, to go on from.
        work: a folder that several machines share, instead of that cache; all parts must be in it when a build ends.
        only: which pass of it to run, and no more.
        part: which of the machines this is.
    """

    workers: int = 1
    shard_passages: int | None = None
    cache: bool = True
    work: Path | None = None
    only: Pass | None = None
    part: Part = field(default_factory=Part)

    def __post_init__(self) -> None:
        at_least("--workers", self.workers, 1)
        if self.shard_passages is not None:
            check_size(self.shard_passages)
        if self.only not in (None, "embed", "record"):
            raise CoreInferError(f"--pass is {self.only!r}: give embed first and, when that is done, record")
        if self.work is None and (self.only or self.part.of > 1):
            raise CoreInferError("--pass and --shard are for several machines: add the --work FOLDER that they share")
        if self.work is not None and self.only is None and self.part.of > 1:
            raise CoreInferError(
                f"--shard {self.part.number}/{self.part.of} is of a pass: add --pass embed, or --pass record"
            )
        if self.work is not None and not self.cache:
            raise CoreInferError(f"--no-cache and --work {self.work} contradict each other: leave out one of them")

    def size_on(self, device: str) -> int:
        """Passages of a shard."""
        return self.shard_passages or (USUAL if device == "cpu" else GPU_USUAL)

    @property
    def slot(self) -> str:
        """How the names of this build's running sums begin. In a folder that machines share, each machine has its own:
        a part that is given to two costs time twice, and loses nothing.
        """
        return self.part.name if self.work is None else f"{self.part.name}-{node() or 'unnamed'}"

    @property
    def remedy(self) -> str:
        """What to do when the place of the parts cannot be written."""
        return KEPT if self.work is None else "name another --work"

    def check_places(self) -> None:
        """Refuse a place for parts before any work is done, where none can be."""
        if self.work is not None or self.cache:
            check_place(self.work or cache_folder("builds"), self.remedy)
