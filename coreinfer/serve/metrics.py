"""What /metrics says. Each server has a registry of its own: nothing is global."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily

from coreinfer.policy import Prediction

SOON = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
ROWS = (1, 2, 4, 8, 16, 32, 64)


class Tally:
    """A histogram that one thread alone counts, for what is counted with every token."""

    def __init__(self, name: str, said: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self.name, self.said, self.bounds = name, said, bounds
        self.counts, self.sum = [0] * (len(bounds) + 1), 0.0
        registry.register(self)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """As Prometheus' client asks for it: in each bucket all up to its bound."""
        names = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        buckets = list(zip(names, accumulate(self.counts), strict=True))
        yield HistogramMetricFamily(self.name, self.said, buckets=buckets, sum_value=self.sum)


class Metrics:
    """Counted by the engine's thread and the event loop; Prometheus' client has locks, a tally one writer."""

    def __init__(self) -> None:
        self.registry = made = CollectorRegistry()
        name = "coreinfer_"
        self.requests = Counter(name + "requests", "Answers by route and status.", ["route", "status"], registry=made)
        tokens = Counter(name + "tokens", "Tokens by kind: prompt, new.", ["kind"], registry=made)
        self.read, self.new = tokens.labels("prompt"), tokens.labels("new")
        self.first = Histogram(
            name + "first_token_seconds", "From arrival to the first token.", registry=made, buckets=SOON
        )
        self.between = Tally(name + "inter_token_seconds", "Between two tokens of a text.", QUICK, made)
        self.rows = Tally(name + "batch_size", "Texts in a step.", ROWS, made)
        self.steps = Counter(name + "step_seconds", "Time in steps.", registry=made)
        self.queue = Gauge(name + "queue_length", "Texts that wait for a slot.", registry=made)
        self.busy = Gauge(name + "slots_in_use", "Texts that have one.", registry=made)
        self.matched = Counter(name + "cluster_matches", "Prompts by nearest cluster.", ["cluster"], registry=made)
        self.sources = Counter(name + "sources", "Prompts by policy and source.", ["policy", "source"], registry=made)
        self.fallbacks = Counter(name + "fallbacks", "Prompts that fell back, by reason.", ["reason"], registry=made)
        self.switches = Counter(name + "set_switches", "Times that other texts or neurons sat down.", registry=made)
        self.cache = Counter(name + "set_cache", "Sets sat down to, by whether gathered yet.", ["hit"], registry=made)
        self.left = Counter(name + "left_early", "Requests whose client left.", registry=made)
        self.freed = Histogram(
            name + "left_seconds", "From a client's leaving to its text's.", registry=made, buckets=QUICK
        )
        self.swaps = Counter(name + "artifact_swaps", "Artifacts swapped in, or refused.", ["result"], registry=made)
        for reason in ("weak_match",):
            self.fallbacks.labels(reason)
        for hit in ("yes", "no"):
            self.cache.labels(hit)

    def began(self, prediction: Prediction, prompt_tokens: int, seconds: float) -> None:
        """A prompt was prefilled, so long after it came."""
        self.read.inc(prompt_tokens)
        self.first.observe(seconds)
        self.matched.labels(str(prediction.cluster)).inc()
        self.sources.labels(prediction.policy, prediction.source).inc()
        if (reason := fallback(prediction)) is not None:
            self.fallbacks.labels(reason).inc()

    def sat(self, gathered: bool) -> None:
        self.switches.inc()
        self.cache.labels("no" if gathered else "yes").inc()

    def stepped(self, rows: int, seconds: float) -> None:
        self.rows.observe(rows)
        self.steps.inc(seconds)
        self.new.inc(rows)

    def text(self) -> bytes:
        return generate_latest(self.registry)


def fallback(prediction: Prediction) -> str | None:
    """Why ``auto`` left the clusters aside, if it did."""
    return "weak_match" if prediction.policy == "auto" and prediction.source == "stability" else None
