"""PURE: how far new passages are from what an artifact was built from, and when a rebuild is worth more than an update.

Centroids stay where they are in an update. So passages on a topic of their own end in clusters that are not theirs:
their neurons then blur those clusters' and their prompts find a cluster of something else. That shows in similarities:
of passages like the old ones, one in twenty is less similar to its centroid than the cluster's 0.05 quantile says (on
texts that k-means did not see, about one in ten).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

STRANGE = 0.25  # share of new passages below their cluster's 0.05 quantile: that many are on other topics
WEAK = 0.25  # share below the threshold: the policies would not believe the match
CHANGED = 0.8  # core sets of the clusters, by passages: what they have in common with those before
GROWN = 1.0  # passages added since the build, for each that it had: the centroids are of a minority
FEWEST = 20  # passages; of fewer, shares are chance


@dataclass(frozen=True)
class Drift:
    """What an update found.

    Attributes:
        passages: how many are new; grown: all that were added since the build, for each that it had.
        similarity, before: median similarity to the centroid, of the new passages and of those that their clusters had.
        strange: share of them below the 0.05 quantile of their cluster, before.
        weak: share below the policy's threshold.
        cores: for each cluster, (K,), what its core set has in common with the one before, 0 to 1.
        sizes: passages of each cluster now, (K,); new: how many of them are new.
    """

    passages: int
    grown: float
    similarity: float
    before: float
    strange: float
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
        if self.passages >= FEWEST and self.strange > STRANGE:
            out.append(f"{self.strange:.0%} of the new passages are less like their cluster than nearly all it had")
        if self.passages >= FEWEST and self.weak > WEAK:
            out.append(f"{self.weak:.0%} of the new passages match no cluster")
        if self.core < CHANGED:
            out.append(f"core sets have only {self.core:.0%} in common with those before")
        if self.grown > GROWN:
            out.append(f"more was added since the build ({self.grown:.1f} times its passages) than it was built from")
        return out

    def as_json(self) -> dict[str, Any]:
        """For the artifact's evidence, and for people."""
        names = ("grown", "similarity", "before", "strange", "weak", "core")
        least = int(self.cores.argmin())
        return {
            "passages": self.passages, **{name: round(float(getattr(self, name)), 4) for name in names},
            "core_least": {"cluster": least, "in_common": round(float(self.cores[least]), 4)},
            "clusters_grown": int((self.new > 0).sum()), "rebuild": self.reasons,
        }  # fmt: skip

    def in_words(self) -> list[str]:
        """Lines for people; the last one advises."""
        old = int((self.sizes - self.new).sum())
        lines = [
            f"{self.passages:,} new passages to {old:,}, in {int((self.new > 0).sum())} of {len(self.sizes)} clusters",
            f"similarity to the centroid {self.similarity:.3f} (median; before, in these clusters: {self.before:.3f}); "
            f"{self.strange:.0%} below their cluster's 0.05 quantile, {self.weak:.0%} below the threshold",
            f"core sets have {self.core:.1%} in common with those before, {self.cores.min():.1%} where least "
            f"(cluster {int(self.cores.argmin())})",
        ]
        why = "; ".join(self.reasons)
        advice = f"rebuild with build-clusters on all texts: {why}" if why else "an update does: no rebuild needed"
        return [*lines, advice]


def strange(
    similarities: NDArray[np.float32], labels: NDArray[np.int64], quantiles: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Which new passages (n,) lie below their cluster's 0.05 quantile, of ``quantiles`` (K, 5)."""
    return np.asarray(similarities < quantiles[labels, 0])


def grown(passages: int, updates: Sequence[dict[str, Any]], new: int) -> float:
    """Passages added since the build, for each that it had; ``passages`` are all before this update."""
    added = sum(int(update["passages"]) for update in updates)
    return (added + new) / max(passages - added, 1)
