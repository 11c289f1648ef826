"""The rungs of the ladder: how each policy ranks the neurons of a text, and how many of each layer it keeps.

random           the floor
wrong-cluster    similarity with the prior of a random cluster outside the mixture: what a wrong topic costs
global           the prior of the whole corpus: what topics are worth is what similarity gains on this
paper-stability  CoreInfer (arXiv 2410.18311), eq. 1 and 2 over the prompt by magnitude, uniform budgets
griffin          GRIFFIN (arXiv 2404.01365): norms of the prompt's normalised activations
stability        the prompt's statistic
glass            GLASS (arXiv 2508.14302): the ranks of stability and global, half each
similarity, hybrid, auto   ``coreinfer.policy``
POLICY+refresh   a policy that chooses again as the continuation grows (``plan.Plan.refresh``)
oracle           the continuation's own statistic: a ranking by energy that knows the future. No bound: another set can
                 lose less, because the statistic does not say how neurons work together

An artifact to compare with adds ``global@NAME`` and ``similarity@NAME``: its priors, clusters and budgets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from coreinfer.artifact import GLOBAL, Artifact
from coreinfer.engine import Engine
from coreinfer.evaluate.masked import Statistics
from coreinfer.evaluate.plan import REFRESH, RENEWED
from coreinfer.match import Match
from coreinfer.neurons import Floats, places, uniform_budgets
from coreinfer.policy import choose
from coreinfer.settings import Source, StatisticSettings

PAPER = StatisticSettings("count", 0.4, "magnitude")
GRIFFIN = StatisticSettings("griffin")


@dataclass(frozen=True)
class Known:
    """What is known of a batch of B prompts: names, matches by artifact (the first is the one measured), statistics."""

    names: list[str]
    matches: list[list[Match]]
    statistics: dict[StatisticSettings, Statistics]
    priors: dict[tuple[int, int], NDArray[np.float64]] = field(default_factory=dict)  # by artifact and text


def rank_fusion(a: Floats, b: Floats) -> NDArray[np.float64]:
    """Mean of the ranks in two scores (L, F), best last; ties rank by the lower id first, as ``neurons.top`` does."""
    return np.asarray(-(places(a).astype(np.float64) + places(b)) / 2)


class Rungs:
    """The policies of a run, for an artifact and those that it is compared with."""

    def __init__(
        self,
        engine: Engine,
        policies: Sequence[str],
        compare: Sequence[tuple[str, Engine]] = (),
        seed: int = 0,
        refresh: bool = False,
    ) -> None:
        self.artifacts = [engine.artifact, *(other.artifact for _, other in compare)]
        self.seed = seed
        more = [f"{policy}@{name}" for name, _ in compare for policy in ("global", "similarity")]
        self._of = {name: i for i, (name, _) in enumerate(compare, 1)}
        few = engine.artifact.manifest.clusters <= engine.artifact.policy.mixture
        self.left_out = tuple(p for p in policies if p == "wrong-cluster" and few)
        self.plain = [p for p in policies if p not in self.left_out] + more
        self.refreshed = [p + REFRESH for p in self.plain if p in RENEWED and refresh]

    @property
    def policies(self) -> list[str]:
        return self.plain + self.refreshed

    @cached_property
    def own(self) -> StatisticSettings:
        return self.artifacts[0].manifest.statistic

    @property
    def wanted(self) -> list[StatisticSettings]:
        """The statistics that the policies rank by; the artifact's first."""
        extra = {"griffin": GRIFFIN, "paper-stability": PAPER}
        return list(dict.fromkeys([self.own, *(extra[p] for p in self.policies if p in extra)]))

    def artifact(self, policy: str) -> Artifact:
        return self.artifacts[self._at(policy)]

    def _at(self, policy: str) -> int:
        return self._of.get(policy.partition("@")[2], 0)

    def statistic(self, policy: str) -> str:
        """The kind of statistic that a policy ranks by, for the rows."""
        fixed = {"random": "none", "griffin": "griffin", "paper-stability": "count"}
        return fixed.get(policy, self.artifact(policy).manifest.statistic.kind)

    def budgets(self, policy: str, keep: float) -> NDArray[np.int64]:
        """Neurons to keep in each layer, (L,)."""
        made = self.artifact(policy)
        uniform = uniform_budgets(keep, made.manifest.layers, made.manifest.width)
        return uniform if policy == "paper-stability" else made.budgets(keep)

    def budgets_kind(self, policy: str, keep: float) -> str:
        """``uniform`` or ``calibrated``, for the rows: whether every layer keeps the same number."""
        return "calibrated" if len(set(self.budgets(policy, keep).tolist())) > 1 else "uniform"

    def source(self, policy: str, known: Known, i: int) -> Source:
        """What ``coreinfer.policy`` uses for a text."""
        chosen = policy.partition("@")[0].removesuffix(REFRESH)
        return choose(known.matches[self._at(policy)][i], chosen, self.artifact(policy).policy)[0]  # type: ignore[arg-type]

    def scores(self, policy: str, known: Known, i: int) -> NDArray[np.float64]:
        """How text ``i`` ranks the neurons, (L, F); what ranks by the artifact's statistic, by its sensitivity too."""
        made, own, name = self.artifact(policy), known.statistics[self.own], known.names[i]
        match policy.partition("@")[0]:
            case "random":
                return self._rng(name).random((made.manifest.layers, made.manifest.width))
            case "wrong-cluster":
                return made.prior(self.wrong_cluster(name, known.matches[0][i])) * made.sensitivity
            case "global":
                return made.prior(GLOBAL) * made.sensitivity
            case "paper-stability":
                return known.statistics[PAPER].prompt[i, :]
            case "griffin":
                return known.statistics[GRIFFIN].prompt[i, :]
            case "glass":
                return rank_fusion(own.prompt[i], made.prior(GLOBAL))
            case "oracle":
                return np.asarray(own.continuation[i] * made.sensitivity)
        source = self.source(policy, known, i)
        prior = self._prior(policy, known, i) if source != "stability" else None
        similarity = known.matches[self._at(policy)][i].similarity
        return made.scores(source, similarity, prior, own.prompt[i], int(own.tokens[i])) * made.sensitivity

    def wrong_cluster(self, name: str, match: Match) -> int:
        """A cluster outside the mixture, the same for a text at every run with this seed."""
        others = np.setdiff1d(np.arange(self.artifacts[0].manifest.clusters), match.clusters)
        return int(self._rng(name).choice(others))

    def _rng(self, name: str) -> np.random.Generator:
        """By the text's name, so that neither a limit nor batches change its draw."""
        return np.random.default_rng((self.seed, crc32(name.encode("utf-8", "surrogatepass"))))

    def _prior(self, policy: str, known: Known, i: int) -> NDArray[np.float64]:
        """Several policies mix the same clusters: each mixture is made once."""
        at = self._at(policy)
        if (at, i) not in known.priors:
            match = known.matches[at][i]
            known.priors[at, i] = self.artifacts[at].prior_of(match.clusters, match.similarities)
        return known.priors[at, i]
