"""How a build, or an update, runs. Nothing of it changes what comes out, and none of it is stored in an artifact."""

from dataclasses import dataclass, field
from pathlib import Path
from platform import node
from typing import Literal, get_args
from uuid import getnode

from coreinfer.caching import REMEDY, cache_folder
from coreinfer.errors import CoreInferError
from coreinfer.places import check_place
from coreinfer.settings import at_least, one_of
from pipeline.joblog import Log
from pipeline.passages import BLOCK
from pipeline.shards.address import check_ray
from pipeline.shards.plan import Part, check_size

KEPT = f"{REMEDY}, or add --no-cache"
Pass = Literal["embed", "record"]
Engine = Literal["local", "ray"]
ENOUGH = 8  # shards a GPU's worker must have: it starts for as long as it takes to do two or three
USUAL, GPU_USUAL = BLOCK, 8 * BLOCK  # passages of a shard: minutes of work, against which a commit takes no time


@dataclass(frozen=True)
class Ways:
    """Where and how the long stages run.

    Attributes:
        engine: local, or ray.
        address: HOST:PORT of a Ray cluster's head, or auto: the one that this machine is in; None: a Ray of our own.
        workers: processes on this machine, 1: this one; or Ray's actors. None: one a GPU, as far as each has ``ENOUGH``
            shards to do, without GPUs 1; or one a GPU or machine of Ray's.
        shard_passages: passages of a shard, a multiple of 512; None: as usual on the device.
        cache: whether what is done is kept in the user's cache, to go on from.
        work: a folder that several machines share, instead of that cache.
        only: which pass of it to run, and no more.
        part: which of the machines this is.
        complete: all parts must be in ``work`` already: none is made.
        bad_shards: files of the dataset and shards that may be unusable and are left out, at most; None: none, and no
            option says how many.
        log: where what happens is written.
        speeds: whether the machine's own limit is measured beside the stages' speeds, which takes seconds; None: if the
            stages took more than a minute.
    """

    engine: Engine = "local"
    address: str | None = None
    workers: int | None = None
    shard_passages: int | None = None
    cache: bool = True
    work: Path | None = None
    only: Pass | None = None
    part: Part = field(default_factory=Part)
    complete: bool = False
    bad_shards: int | None = 0
    log: Log = field(default_factory=Log)
    speeds: bool | None = None

    def __post_init__(self) -> None:
        one_of("--engine", self.engine, get_args(Engine))
        if self.address is not None and self.engine != "ray":
            raise CoreInferError(f"--address {self.address} is of a Ray cluster: add --engine ray")
        if self.workers is not None:
            at_least("--workers", self.workers, 1)
        if self.bad_shards is not None:
            at_least("--max-bad-shards", self.bad_shards, 0)
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

    def processes_on(self, device: str, shards: int) -> int:
        """Workers beside this process for so many shards, as far as they are known before a cluster is."""
        if self.engine == "ray":
            return self.workers or 1
        usual = min(_gpus(), shards // ENOUGH) if device == "cuda" else 1
        count = min(usual if self.workers is None else self.workers, shards)
        return count if count > 1 else 0

    def size_on(self, device: str) -> int:
        """Passages of a shard."""
        return self.shard_passages or (USUAL if device == "cpu" else GPU_USUAL)

    @property
    def slot(self) -> str:
        """How the names of this build's running sums begin. In a folder that machines share, each machine has its own,
        whatever they are called: a part that is given to two costs time twice, and loses nothing.
        """
        return self.part.name if self.work is None else f"{self.part.name}-{node() or 'unnamed'}-{getnode():012x}"

    @property
    def remedy(self) -> str:
        """What to do when the place of the parts cannot be written."""
        return KEPT if self.work is None else "name another --work"

    def check(self) -> None:
        """Refuse before any work is done a place where no parts can be, and a cluster that is not there."""
        if self.engine == "ray":
            check_ray(self.address)
        if self.work is not None or self.cache:
            check_place(self.work or cache_folder("builds"), self.remedy)


def _gpus() -> int:
    from pipeline.shards.gpus import gpus_here  # torch: who only checks what was asked for need not wait for that

    return len(gpus_here())
