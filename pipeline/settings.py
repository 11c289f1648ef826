"""What a build is asked for, as a frozen record that checks itself."""

from dataclasses import dataclass
from typing import get_args

from coreinfer.hub import DEFAULT
from coreinfer.settings import Dtype, StatisticSettings, at_least, check_device, check_keep, check_seed, one_of
from pipeline.cluster import check_clusters
from pipeline.sources import SourceSettings


@dataclass(frozen=True)
class BuildSettings:
    """Everything that decides what an artifact holds; stored in its manifest."""

    source: SourceSettings
    model: str = "demo"
    embedder: str = DEFAULT
    clusters: int | None = None  # None: auto
    statistic: StatisticSettings | None = None  # None: the one that costs held-out texts least
    keep: float = 0.4
    examples: int = 0
    seed: int = 0
    device: str = "cpu"
    dtype: str = "auto"
    calibrate: bool = True
    compiled: bool | None = None  # whether the LM's layers are, for recording; None: where that pays

    def __post_init__(self) -> None:
        check_keep(self.keep)
        check_seed(self.seed)
        at_least("examples", self.examples, 0)
        if self.clusters is not None:
            check_clusters(self.clusters, self.clusters)
        one_of("the dtype", self.dtype, get_args(Dtype))
        check_device(self.device)
