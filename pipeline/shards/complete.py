"""Whether a stage's parts are all there, of whichever machines; what is missing is named."""

from collections.abc import Collection

from coreinfer.errors import CoreInferError
from coreinfer.wording import counted
from pipeline.shards import marks, parts
from pipeline.shards.account import BAD
from pipeline.shards.plan import Plan, listed
from pipeline.shards.store import Store

WHAT = {"embed": "embeddings", "record": "recorded sums"}  # that a stage makes


def bad_ones(stage: str, store: Store, plan: Plan, done: Collection[int]) -> dict[int, str]:
    """The shards that were found to be bad, and why.

    Raises:
        CoreInferError: others that are not ``done`` were not tried.
    """
    missing = set(range(plan.count)) - set(done)
    bad = {shard: str(facts["why"]) for shard, facts in marks.read(store, marks.BAD).items() if shard in missing}
    if untried := missing - set(bad):
        refuse(stage, untried, plan, store)
    return bad


def check_few(bad: dict[str, dict[int, str]], stage: str, allowed: int) -> None:
    """That not too many are bad, up to this stage.

    Raises:
        CoreInferError: more than are ``allowed``.
    """
    if (many := sum(map(len, bad.values()))) > allowed:
        raise CoreInferError(
            f"{counted(many, 'shard')} could not be done, the last of them {max(bad[stage])} ({stage}: "
            f"{bad[stage][max(bad[stage])]}): run --pass {stage} again, or {BAD} {many}"
        )


def refuse(stage: str, missing: Collection[int], plan: Plan, store: Store) -> None:
    """Say which shards are missing, and what to do.

    Raises:
        CoreInferError: always.
    """
    damaged = parts.damaged(store, missing)
    more = f"; {len(damaged)} of them damaged, or made with other settings" * bool(damaged)
    raise CoreInferError(
        f"{WHAT[stage]} of {len(missing)} of {plan.count} shards are missing in {store.folder} ({listed(missing)}"
        f"{more}): run the same command with --pass {stage} --shard i/n on the machines that have not, or with "
        f"--pass {stage} alone for all that are missing"
    )
