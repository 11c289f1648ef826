"""What a report's page looks like, and its words on each policy."""

from coreinfer.page.files import text_of

POLICIES = {
    "random": "neurons at random: the floor",
    "wrong-cluster": "the prior of a random cluster outside the prompt's mixture: what a wrong topic costs",
    "global": "the prior of the whole corpus, the same neurons for every prompt",
    "paper-stability": "CoreInfer, eq. 1 and 2 over the prompt by magnitude, the same number of neurons in every layer",
    "griffin": "GRIFFIN: norms of the prompt's normalised activations",
    "stability": "the artifact's statistic over the prompt",
    "glass": "GLASS: the ranks of the prompt's statistic and of the global prior, half each",
    "similarity": "the prior of the clusters nearest to the prompt's meaning; knows nothing of its activations",
    "hybrid": "the mean of both, the prior worth a calibrated number of prompt tokens",
    "auto": "what calibration chose, and stability where the match is weak: the default",
    "oracle": "ranks by the statistic of the continuation itself. It knows the future, yet it is no bound: another set "
    "can lose less, because the statistic does not say how neurons work together",
}  # fmt: skip


def style() -> str:
    """What every page of the project looks like, and what this one adds."""
    return text_of("base.css") + _MORE


_MORE = """
th:nth-child(2), td:nth-child(2), th:nth-child(3), td:nth-child(3) { text-align: left }
tr.auto td { background: #f1efe9; font-weight: 600 }
tr.first td { border-top: 1px solid #c9c6bf; padding-top: 8px }
.heat th, .heat td { text-align: right !important }
.heat th:first-child, .heat td:first-child { text-align: left !important }
.heat th { white-space: normal; vertical-align: bottom; line-height: 1.2 }
.heat td { border: 2px solid var(--paper) }
.policies dt { color: var(--ink); font-weight: 500 }
.policies i { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 8px }
"""
