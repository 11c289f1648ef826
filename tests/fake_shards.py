"""A stage's task that needs no models: shards whose faults are said beforehand."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pipeline.passages import BLOCK
from pipeline.shards.plan import Plan
from pipeline.shards.store import Store
from pipeline.shards.tasks import Place


@dataclass(frozen=True)
class FakeTask:
    """Shards of one block; ``faults`` of some of them, by their number as text."""

    folder: Path
    faults: dict[str, str]

    place = Place(Path("passages"), Plan(9 * BLOCK, BLOCK), "cpu")
    store = Store(Path("store"), "key")

    def on(self, device: str) -> Self:
        return self

    def load(self) -> Any: ...

    def begin(self, model: Any, slot: str) -> Any: ...

    def plain(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "faults": self.faults}

    def is_done(self, shard: int, slot: str) -> bool:
        return (self.folder / f"{shard}.done").exists()
