"""Whether passes left all their parts in a folder, as far as it can tell by itself, without the corpus and the models:
a merge that lacks some ends before it reads the one and loads the others.
"""

from pathlib import Path

from pipeline.shards import parts
from pipeline.shards.complete import bad_ones
from pipeline.shards.plan import Plan
from pipeline.shards.store import Facts, Store, begun_with, key_of


def look(folder: Path) -> None:
    """Refuse a folder that lacks parts, in the words of the merge. An empty folder is none of those, nor are parts of
    other settings, nor damaged embeddings where none is missing: the merge itself finds them.

    Raises:
        CoreInferError: embeddings or recorded sums of some shards are missing.
    """
    if (facts := begun_with(folder / "embed")) is None or (plan := _plan(facts)) is None:
        return  # nothing says how many there must be
    store = Store(folder / "embed", key_of(facts))
    if len(list(store.folder.glob("*.npy"))) < plan.count:
        bad_ones("embed", store, plan, parts.embedded(store, plan))
    summed = Store(folder / "record", key_of(begun_with(folder / "record") or {}))
    bad_ones("record", summed, plan, parts.shards_of(parts.disjoint(summed, plan)[0]))


def _plan(facts: Facts) -> Plan | None:
    corpus, size = facts.get("corpus"), facts.get("--shard-passages")
    passages = corpus.get("passages") if isinstance(corpus, dict) else None
    return Plan(passages, size) if type(passages) is int and type(size) is int and size > 0 else None
