"""Builds that are killed at random moments, some of them again while they go on from what the first one left. `make
test-faults`; COREINFER_KILLS says how many kills, and a seed other than 0 in COREINFER_SEED draws other moments.
"""

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator

import pytest
from breaking import Broken, breaking

KILLS, SEED = int(os.environ.get("COREINFER_KILLS", "1000")), int(os.environ.get("COREINFER_SEED", "0"))
TENTH = 10  # one in ten is of a build that recovers


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    """Two shards: 512 passages and 88."""
    with breaking(tmp_path_factory.mktemp("faults"), 600) as made:
        yield made


class Killing:
    """One output, the builds of it, and what became of them."""

    def __init__(self, broken: Broken) -> None:
        self.broken, self.rng, self.seen = broken, random.Random(SEED), Counter[str]()
        made = broken.build("whole")
        self.whole, self.seconds = made["tree"], made["seconds"]
        self.old = broken.build("old", statistic="count")["tree"]
        assert made["state"] == "whole"
        assert {} != self.old != self.whole

    def kill(self, before: dict[str, str], recovering: bool) -> bool:
        """Build over what is there, and kill that; returns whether it was still at work when its moment came."""
        moment = self.rng.uniform(0, 1.1 * self.seconds)
        made = self.broken.build("new", "late", moment, overwrite=True)
        assert made["code"] in (0, -9), made
        assert made["tree"] in (before, self.whole), (moment, made["state"])
        if not (made["code"] or recovering):
            self.seconds = made["seconds"]  # a machine is busier at one hour than at another
        self.seen["killed" if made["code"] else "done"] += 1
        self.seen["killed while it recovers"] += bool(made["code"] and recovering)
        self.seen["what stood there stands" if made["tree"] == before else "the new one"] += 1
        return bool(made["code"])

    def recover(self) -> None:
        """The same command, in peace."""
        made = self.broken.build("new", overwrite=True)
        assert (made["code"], made["tree"], made["left"]) == (0, self.whole, []), made
        shutil.rmtree(self.broken.folder / "new")
        shutil.rmtree(self.broken.folder / "cache-new", ignore_errors=True)


def test_killed_at_random(broken: Broken) -> None:
    """Nothing but an old or the new artifact is ever there, and a build that nobody kills makes that one."""
    killing, episode = Killing(broken), 0
    while killing.seen["killed"] < KILLS:
        before = killing.old if (episode := episode + 1) % 2 else dict[str, str]()
        if before:
            shutil.copytree(broken.folder / "old", broken.folder / "new")
        seen, killed = killing.seen, killing.kill(before, recovering=False)
        if killed and seen["killed while it recovers"] * TENTH < seen["killed"]:
            killing.kill(before, recovering=True)
        killing.recover()
        if episode % 20 == 0:
            print(f"{episode} builds: {dict(killing.seen)}", flush=True)
    print(f"in all: {dict(killing.seen)}")
