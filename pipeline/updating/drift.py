"""PURE: how far new passages are from what an artifact was built from, and when a rebuild is worth more than an update.

An update makes no new clusters. So passages on a topic of their own end in clusters that are not theirs: their neurons
then blur those clusters' and their prompts find a cluster of something else. That shows in similarities. Of a cluster's
own members, one in twenty is less similar to the centroid than its 0.05 quantile; of like passages that the centroid
was not made from, more are, and the smaller the cluster the more, because each of its members pulled the centroid to
itself. Measured on the demo's texts: 0.10 to 0.12 at 56 passages a cluster, 0.25 to 0.27 at 19, so 0.05 + 4 / n; of
passages on other subjects 0.58 and 0.75.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data import QUANTILES

STRANGE, PULL = 0.2, 4.0  # share of new passages below their cluster's 0.05 quantile, beyond 0.05 + PULL / its size
WEAK = 0.25  # share below the threshold: the policies would not believe the match
CHANGED = 0.8  # core sets of the clusters, by passages: what they have in common with those before
GROWN = 1.0  # passages added since the build, for each that it had: the centroids are of a minority
FEWEST = 20  # passages; of fewer, shares are chance
CLUSTER = 0.5  # of a usual cluster's size: fewer passages than that would not make a cluster of their own


@dataclass(frozen=True)
class Drift:
    """What an update found.

    Attributes:
        passages: how many are new; grown: all that were added since the build, for each that it had; foreign: how many
            of all those were below the 0.05 quantile of their cluster.
        similarity, before: median similarity to the centroid, of the new passages and of those that their clusters had.
        strange, usual: share of them below the 0.05 quantile of their cluster, before; what it would be of like ones.
        weak: share below the policy's threshold.
        cores: for each cluster, (K,), what its core set has in common with the one before, 0 to 1.
        sizes: passages of each cluster now, (K,); new: how many of them are new.
    """

    passages: int
    grown: float
    foreign: int
    similarity: float
    before: float
    strange: float
    usual: float
    weak: float
    cores: NDArray[np.float64]
    sizes: NDArray[np.int64]
    new: NDArray[np.int64]

    @property
    def core(self) -> float:
        """What core sets have in common with those before, mean over passages."""
        return float(np.average(self.cores, weights=self.sizes))

    @property
    def reasons(self) -> list[str]:
        """Why a rebuild is worth its time; none if it is not."""
        out = list[str]()
        many = max(FEWEST, CLUSTER * float(np.median(self.sizes)))
        if self.apart and self.foreign >= many:
            out.append(
                f"{self.strange:.0%} of the new passages are less like their cluster than nearly all it had, "
                f"{self.usual:.0%} would be of like texts"
            )
        if self.weak > WEAK and self.foreign >= many:
            out.append(f"{self.weak:.0%} of the new passages match no cluster")
        if self.core < CHANGED:
            out.append(f"core sets have only {self.core:.0%} in common with those before")
        if self.grown > GROWN:
            out.append(f"more was added since the build ({self.grown:.1f} times its passages) than it was built from")
        return out

    @property
    def apart(self) -> bool:
        """Whether the new passages are on other topics, many or few of them."""
        return self.strange > self.usual + STRANGE

    def as_json(self) -> dict[str, Any]:
        """For the artifact's evidence, and for people."""
        names = ("grown", "similarity", "before", "strange", "usual", "weak", "core")
        least = int(self.cores.argmin())
        return {
            "passages": self.passages, "foreign": self.foreign,
            **{name: round(float(getattr(self, name)), 4) for name in names},
            "core_least": {"cluster": least, "in_common": round(float(self.cores[least]), 4)},
            "clusters_grown": int((self.new > 0).sum()), "rebuild": self.reasons,
        }  # fmt: skip

    def in_words(self) -> list[str]:
        """Lines for people; the last one advises."""
        old = int((self.sizes - self.new).sum())
        lines = [
            f"{self.passages:,} new passages to {old:,}, in {int((self.new > 0).sum())} of {len(self.sizes)} clusters",
            f"similarity to the centroid {self.similarity:.3f} (median; before, in these clusters: {self.before:.3f}); "
            f"{self.strange:.0%} below their cluster's 0.05 quantile (of like texts: {self.usual:.0%}), "
            f"{self.weak:.0%} below the threshold",
            f"core sets have {self.core:.1%} in common with those before, {self.cores.min():.1%} where least "
            f"(cluster {int(self.cores.argmin())})",
        ]
        why = "; ".join(self.reasons)
        advice = f"rebuild with build-clusters on all texts: {why}" if why else "no rebuild is needed"
        if self.apart and not why:
            advice += ", for those on other topics are too few to make clusters of their own"
        return [*lines, advice]


def strange(
    similarities: NDArray[np.float32], labels: NDArray[np.int64], quantiles: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Which new passages (n,) lie below their cluster's 0.05 quantile, of ``quantiles`` (K, 5)."""
    return np.asarray(similarities < quantiles[labels, 0])


def usually_strange(sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of further passages of a cluster's kind that ``strange`` is true of, by its size, (K,)."""
    return np.minimum(QUANTILES[0] + PULL / np.maximum(sizes, 1), 1)


def grown(passages: int, updates: Sequence[dict[str, Any]], new: int) -> float:
    """Passages added since the build, for each that it had; ``passages`` are all before this update."""
    added = sum(update["passages"] for update in updates)
    return float((added + new) / max(passages - added, 1))
