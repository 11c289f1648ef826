"""PURE: what each stage of a build takes, from the sizes of what it works on and from rates that were measured.

Times of the long stages are those of a passage in a like sample. k-means is counted in multiplications, at the measured
rate; what is measured on held-out texts, in forwards of a text under a plan of neurons. Memory is what the process had
at its most while all of that was timed, and the sums, which were not there then.

Workers divide the time as far as the machine has room for more processes like the one that was timed. Each has as many
threads as that one, so on a CPU they take turns, and gain what it leaves idle. That rests on a passage's processor time
being the same beside other workers: it was 1.0 to 1.2 times as long. Of GPUs each is one worker's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isqrt

from pipeline.calibration.run import plans
from pipeline.calibration.statistic import MOST as STATISTIC_TEXTS
from pipeline.calibration.statistic import TRIED
from pipeline.kmeans import FLAT, MOVES, ROUNDS, sample_size

HERE = "one process"
STEPS = 15  # of calibration: each runs the held-out texts dense again, or with gradients


@dataclass(frozen=True)
class Sizes:
    """Of a corpus, passages, bytes of text, held-out passages, and those of them that calibration runs; numbers of
    clusters to try, rising; L, F and d; bytes of the two models' weights.
    """

    passages: int
    text: int
    held: int
    usable: int
    ks: Sequence[int]
    layers: int
    width: int
    dimension: int
    lm: int
    embedder: int

    @property
    def sums(self) -> int:
        """Bytes of one worker's sums."""
        return 8 * sum(self.ks) * self.layers * self.width

    @property
    def vectors(self) -> int:
        """Bytes of all embeddings."""
        return 4 * self.passages * self.dimension


@dataclass(frozen=True)
class Rates:
    """Seconds to read, embed and record a passage; of a multiplication in k-means; of a held-out text, dense and under
    one plan of neurons, and in one clustering whose neurons are scored for it. ``embed_room``, ``record_room``: as many
    processes that do it could have the machine at once without waiting for each other. ``base``: bytes of this process,
    ``gradients``: while it finds them.
    """

    read: float
    embed: float
    record: float
    embed_room: float
    record_room: float
    multiply: float
    dense: float
    forward: float
    score: float
    base: int
    gradients: int


@dataclass(frozen=True)
class Need:
    """What a stage takes on an engine: seconds, bytes of memory of all processes, bytes of disk that then lie there."""

    stage: str
    engine: str
    seconds: float
    memory: int
    disk: int


def needs(size: Sizes, rate: Rates, workers: int, chosen: bool, calibrated: bool) -> Iterator[Need]:
    """Every stage in one process, and the two that ``workers`` (more than 1) share on them too. ``chosen``: whether the
    statistic is measured; ``calibrated``: whether anything is.
    """
    base, kept = rate.base, size.text + size.vectors
    both = kept + size.vectors + _labels(size)  # one copy of the embeddings lies in the cache, one beside the output
    written = 4 * (size.ks[-1] + 1) * size.layers * size.width
    yield Need("read passages", HERE, rate.read * size.passages, base, size.text)
    if chosen and calibrated:
        texts = min(STATISTIC_TEXTS, size.usable)
        yield Need("choose statistic", HERE, texts * (2 * rate.dense + 2 * len(TRIED) * rate.forward), base, size.text)
    yield Need("embed", HERE, rate.embed * size.passages, base, kept)
    if workers > 1:
        many, apart = f"{workers} workers", base + workers * (base - size.lm)
        yield Need("embed", many, rate.embed * size.passages / min(workers, rate.embed_room), apart, kept)
    yield Need("cluster", HERE, rate.multiply * multiplications(size), base + _sample(size), both)
    yield Need("record", HERE, rate.record * size.passages, base + size.sums, both + 2 * size.sums)
    if workers > 1:
        apart = base + workers * (base - size.embedder + size.sums)
        seconds = rate.record * size.passages / min(workers, rate.record_room)
        yield Need("record", many, seconds, apart, both + 2 * workers * size.sums)
    rest = both + workers * size.sums
    if len(size.ks) > 1:
        each = rate.record + len(size.ks) * rate.score
        yield Need("choose K", HERE, size.held * each, base + size.sums, rest)
    seconds = rate.embed * size.held / 2 + rate.score * size.ks[-1]  # beginnings of texts, and a core set a cluster
    yield Need("write", HERE, seconds, base + size.sums, rest + written)
    if calibrated and size.usable:
        each = STEPS * rate.dense + plans(size.layers, size.ks[-1]) * rate.forward
        seconds = size.usable * each
        yield Need("calibrate", HERE, seconds, max(base, rate.gradients) + size.sums, rest + written)


def multiplications(size: Sizes) -> float:
    """Of k-means and of all assignments."""
    k, d = size.ks[-1], size.dimension
    sample = sample_size(size.passages, k, d)
    levels = (2 * isqrt(k), MOVES * k) if k > FLAT else (k, 0)
    train = sample * d * (ROUNDS * levels[0] + levels[1])
    return float(train + size.passages * d * sum(size.ks))


def _sample(size: Sizes) -> int:
    """Bytes of what k-means has in memory at a time."""
    return 4 * size.dimension * min(sample_size(size.passages, min(size.ks[-1], FLAT), size.dimension), size.passages)


def _labels(size: Sizes) -> int:
    return 4 * size.passages * len(size.ks)
