"""Which passages a shard holds, and which shards are whose, as the command line or a job's environment says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreinfer.errors import CoreInferError
from pipeline.passages import BLOCK
from pipeline.shards.plan import Part, Plan, check_size, listed

ARRAY = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2"}


@given(st.integers(1, 9999), st.integers(1, 9), st.integers(1, 7))
def test_every_passage_is_in_one_shard_and_every_shard_on_one_machine(
    passages: int, blocks: int, machines: int
) -> None:
    plan = Plan(passages, blocks * BLOCK)
    assert [row for shard in range(plan.count) for row in plan.rows(shard)] == list(range(passages))
    holders = [[part for part in range(machines) if Part(part, machines).holds(s)] for s in range(plan.count)]
    assert all(len(each) == 1 for each in holders)
    assert plan.passages_of(range(plan.count)) == passages


def test_a_part_is_parsed_and_shown() -> None:
    assert Part.parse("3/4") == Part(3, 4)
    for wrong in ("4/4", "-1/4", "1", "a/b", "1/2/3", ""):
        with pytest.raises(CoreInferError, match=r"--shard is .*: give i/n"):
            Part.parse(wrong)
    for size in (0, -512, 700):
        with pytest.raises(CoreInferError, match=rf"--shard-passages is {size}: give a multiple of 512"):
            check_size(size)
    assert listed([3, 1]) == "1, 3"
    assert listed(range(20)) == "0, 1, 2, 3, 4, 5, 6, 7 and 12 more"


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ({"RANK": "3", "WORLD_SIZE": "8"}, Part(3, 8)),
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "4"}, Part(3, 4)),
        (
            {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "5", "SLURM_ARRAY_TASK_MIN": "1",
             "SLURM_ARRAY_TASK_STEP": "2", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, Part(4, 5),
        ),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, Part(1, 2)),
    ],
)  # fmt: skip
def test_a_job_says_which_part_it_is(said: dict[str, str], part: Part) -> None:
    assert Part.of_job(said) == part


def test_a_job_that_says_nothing_of_use() -> None:
    with pytest.raises(CoreInferError, match="--shard is 'auto', but the environment has no RANK and WORLD_SIZE or"):
        Part.of_job({"RANK": "0"})
    for said, words in (
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK is 'x', no whole number from 0 on: give i/n"),
        ({"RANK": "0", "WORLD_SIZE": ""}, "WORLD_SIZE is '', no whole number from 1 on"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE is '0', no whole number from 1 on"),
        ({"RANK": "²", "WORLD_SIZE": "2"}, "RANK is '²'"),
        ({"SLURM_PROCID": "-1", "SLURM_NTASKS": "2"}, "SLURM_PROCID is '-1'"),
        (ARRAY | {"SLURM_ARRAY_TASK_STEP": "0"}, "SLURM_ARRAY_TASK_STEP is '0', no whole number from 1 on: give i/n"),
        (ARRAY | {"SLURM_ARRAY_TASK_MIN": "a"}, "SLURM_ARRAY_TASK_MIN is 'a', no whole number from 0 on"),
    ):
        with pytest.raises(CoreInferError, match=f"^--shard is 'auto', but the environment's {words}"):
            Part.of_job(said)
    with pytest.raises(CoreInferError, match="--shard is '4/2'"):  # an array of single numbers, such as 1,9
        Part.of_job({"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "5"})
