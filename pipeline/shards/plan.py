"""Which passages a shard holds, and which shards are one machine's. A shard is whole blocks, so its numbers are those
of one pass over the corpus.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coreinfer.errors import CoreInferError
from pipeline.passages import BLOCK

# The number of a process, of how many, and where not every number counts: the first one, and how far they are apart.
JOBS = (
    ("RANK", "WORLD_SIZE", "", ""),
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"),
    ("SLURM_PROCID", "SLURM_NTASKS", "", ""),
)
SHOWN = 8  # numbers of shards that a message lists


@dataclass(frozen=True)
class Plan:
    """``passages`` of a corpus in shards of ``size`` consecutive ones; the last may be smaller."""

    passages: int
    size: int

    @property
    def count(self) -> int:
        return -(-self.passages // self.size)

    def rows(self, shard: int) -> range:
        """The passages of a shard, by their index."""
        return range(shard * self.size, min((shard + 1) * self.size, self.passages))

    def passages_of(self, shards: Iterable[int]) -> int:
        """How many passages these shards hold together."""
        return sum(len(self.rows(shard)) for shard in shards)


@dataclass(frozen=True)
class Part:
    """One of ``of`` machines: the shards whose number leaves ``number`` when divided by ``of``."""

    number: int = 0
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> "Part":
        """``--shard 2/8``, from 0/8 to 7/8; ``auto``: as the job's environment says."""
        if text == "auto":
            return cls.of_job(os.environ)
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if not found or int(found[1]) >= int(found[2]):
            raise CoreInferError(f"--shard is {text!r}: give i/n with i from 0 to n - 1, such as 0/4 to 3/4")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def of_job(cls, said: Mapping[str, str]) -> "Part":
        """What torchrun, a SLURM array or srun says of a process and of how many there are."""
        for number, of, first, step in JOBS:
            if number in said and of in said:
                mine, count, start = _said(said, number), _said(said, of, 1), _said(said, first, usual=0)
                return cls.parse(f"{(mine - start) // _said(said, step, 1, usual=1)}/{count}")
        names = " or ".join(f"{number} and {of}" for number, of, _, _ in JOBS)
        raise CoreInferError(f"--shard is 'auto', but the environment has no {names}: give i/n")

    @property
    def name(self) -> str:
        return f"{self.number}of{self.of}"

    def holds(self, shard: int) -> bool:
        return shard % self.of == self.number


def _said(said: Mapping[str, str], name: str, least: int = 0, usual: int = 0) -> int:
    """The number that a variable of the environment holds; ``usual`` where there is none."""
    text = said.get(name, str(usual))
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < least:
        raise CoreInferError(
            f"--shard is 'auto', but the environment's {name} is {text!r}, no whole number from {least} on: give i/n"
        )
    return int(text)


def check_size(size: int) -> None:
    """Refuse a size of shards that would cut a block: its numbers would be others in the last bits."""
    if size < 1 or size % BLOCK:
        raise CoreInferError(f"--shard-passages is {size}: give a multiple of {BLOCK}, such as {4 * BLOCK}")


def listed(shards: Iterable[int]) -> str:
    """``3, 4, 7 and 12 more``."""
    numbers = sorted(shards)
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return ", ".join(map(str, numbers[:SHOWN])) + more
