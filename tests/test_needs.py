"""What a build needs, foretold from sizes and rates: what grows, by how much, and who shares it."""

from dataclasses import replace

import pytest

from pipeline.kmeans import FLAT
from pipeline.needs import Need, Rates, Sizes, multiplications, needs

SIZE = Sizes(10_000, 5_000_000, 200, 96, [4, 16, 64], 6, 2560, 384, 40_000_000, 45_000_000)
RATES = Rates(1e-4, 0.02, 0.03, 8.0, 1.25, 1e-11, 0.05, 0.02, 1e-3, 10**9, 2 * 10**9)


def foretold(size: Sizes, workers: int = 1) -> dict[tuple[str, str], Need]:
    return {(need.stage, need.engine): need for need in needs(size, RATES, workers, chosen=True, calibrated=True)}


def test_the_long_stages_grow_with_the_corpus_and_memory_does_not() -> None:
    few, many = foretold(SIZE), foretold(replace(SIZE, passages=100_000))
    for stage in ("read passages", "embed", "record"):
        key = (stage, "one process")
        assert many[key].seconds == pytest.approx(10 * few[key].seconds)
        assert many[key].memory == few[key].memory
    for stage in ("choose statistic", "choose K", "calibrate"):
        key = (stage, "one process")
        assert many[key].seconds == few[key].seconds


def test_gradients_are_found_in_calibration_alone() -> None:
    made = foretold(SIZE, 4)
    most = made["calibrate", "one process"].memory
    assert most - made["write", "one process"].memory == 10**9
    assert all(
        need.memory < most for need in made.values() if need.engine == "one process" and need.stage != "calibrate"
    )


def test_workers_share_what_is_in_shards() -> None:
    made = foretold(SIZE, 4)
    assert {stage for stage, engine in made if engine == "4 workers"} == {"embed", "record"}
    assert made["embed", "4 workers"].seconds == 10_000 * 0.02 / 4  # there is room for more
    assert made["record", "4 workers"].seconds == 10_000 * 0.03 / 1.25  # what one process leaves idle
    assert made["record", "4 workers"].memory > made["record", "one process"].memory + 4 * SIZE.sums
    assert made["record", "4 workers"].disk - made["record", "one process"].disk == 3 * 2 * SIZE.sums


def test_one_number_of_clusters_is_not_chosen() -> None:
    stages = [need.stage for need in needs(replace(SIZE, ks=[64]), RATES, 1, chosen=False, calibrated=False)]
    assert stages == ["read passages", "embed", "cluster", "record", "write"]


def test_k_means_costs_less_than_its_square() -> None:
    """Up to ``FLAT`` clusters the sample grows too; above, groups are smaller than the whole."""
    size = replace(SIZE, passages=10**7)
    one, four = (multiplications(replace(size, ks=[k])) for k in (FLAT, 4 * FLAT))
    assert four < 8 * one
    assert multiplications(replace(size, ks=[FLAT, FLAT])) - one == pytest.approx(size.passages * 384 * FLAT)
