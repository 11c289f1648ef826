"""Which GPUs are whose."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from pipeline.shards import gpus
from pipeline.shards.crew import Here
from pipeline.shards.gpus import LAUNCHED, left_free, shared_out
from pipeline.shards.processes import Processes
from pipeline.shards.ways import ENOUGH, Ways
from pipeline.shards.work import Work


def test_all_are_this_process_s_unless_a_launcher_says_otherwise() -> None:
    assert shared_out(3, {}) == [0, 1, 2]
    assert shared_out(3, {"LOCAL_RANK": "1"}) == [0, 1, 2]
    assert shared_out(3, {"LOCAL_RANK": "x", "LOCAL_WORLD_SIZE": "3"}) == [0, 1, 2]
    there = {"SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "2(x3)"}
    assert shared_out(4, there) == [1, 3]
    assert shared_out(2, there | {"SLURM_GPUS_PER_TASK": "2"}) == [0, 1]  # it sees no others
    assert shared_out(0, {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}) == []


@given(some.integers(1, 9), some.integers(1, 9), some.sampled_from(LAUNCHED))
def test_processes_share_them_out(count: int, processes: int, names: tuple[str, str]) -> None:
    """Each is used, and by as few as can be."""
    said = [dict(zip(names, (str(number), str(processes)), strict=True)) for number in range(processes)]
    shares = [shared_out(count, each) for each in said]
    used = sorted(gpu for share in shares for gpu in share)
    assert all(shares)
    assert set(used) == set(range(count))
    assert max(used.count(gpu) for gpu in range(count)) == -(-processes // count)
    assert len(used) == max(count, processes)


def test_gpus_of_another_kind_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["H100", "T1000", "H100"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", names.__getitem__)
    assert gpus.gpus_here() == [0, 2]


class Model:
    """Notes where it is put."""

    def __init__(self, device: str) -> None:
        self.device, self.moves = torch.device(device), list[str]()

    def to(self, device: Any) -> None:
        self.moves.append(str(device))


def test_a_gpu_is_left_to_the_workers() -> None:
    """Also where they fail; what is on a CPU stays there."""
    there, here = Model("cuda:1"), Model("cpu")
    moved = list[str]()

    def fail() -> None:
        moved.extend(there.moves)
        raise KeyError

    with pytest.raises(KeyError), left_free(there), left_free(here):
        fail()
    assert moved == ["cpu"]
    assert there.moves == ["cpu", "cuda:1"]
    assert here.moves == []


@pytest.mark.parametrize(
    ("workers", "device", "shards", "wanted"),
    [
        (None, "cuda", 99, 3), (None, "cuda", 2 * ENOUGH, 2), (None, "cuda", 2 * ENOUGH - 1, 0),
        (None, "cuda:1", 99, 0), (None, "cpu", 99, 0), (1, "cuda", 99, 0), (2, "cuda", 99, 2), (5, "cpu", 3, 3),
        (2, "cpu", 1, 0),
    ],
)  # fmt: skip
def test_a_worker_a_gpu(
    monkeypatch: pytest.MonkeyPatch, workers: int | None, device: str, shards: int, wanted: int
) -> None:
    """Unless a number, or a GPU, was named, or there is too little to do."""
    monkeypatch.setattr(gpus, "gpus_here", lambda: [0, 1, 2])
    crew = Work(Ways(workers=workers))._crew(device, None, shards)
    assert (crew.count if isinstance(crew, Processes) else 0) == wanted
    assert isinstance(crew, Processes if wanted else Here)
