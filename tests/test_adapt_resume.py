"""A stopped training goes on as if it had not stopped, and only as what it was."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from adapting import CONTEXT, loaded
from adapting import asked as asked
from adapting import place as place
from conftest import tree
from torch import Tensor

from coreinfer.errors import CoreInferError
from pipeline.adapt import run
from pipeline.adapt.corpus import read_corpus
from pipeline.adapt.run import adapt
from pipeline.adapt.settings import AdaptSettings
from pipeline.adapt.trainer import Trainer


def test_a_stopped_run_goes_on_bit_for_bit(
    place: Path, asked: AdaptSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = list[str]()
    straight = adapt(asked, tmp_path / "straight")
    advance = Trainer.advance

    def stop(self: Trainer) -> Tensor:
        if self.step == 5:
            raise KeyboardInterrupt
        return advance(self)

    monkeypatch.setattr(Trainer, "advance", stop)
    with pytest.raises(KeyboardInterrupt):
        adapt(asked, tmp_path / "stopped")
    assert not (tmp_path / "stopped").exists()
    left = tmp_path / ".stopped.adapt"
    assert sorted(tree(left)) == [
        "settings.json", "step-4/state.json", "step-4/state.safetensors", "topics.safetensors",
    ]  # fmt: skip
    monkeypatch.setattr(Trainer, "advance", advance)
    for other, named in ((replace(asked.train, seed=4), "train seed 3"), (replace(asked.train, steps=7), "steps 6")):
        with pytest.raises(CoreInferError, match=f"has .*{named}, this one has"):
            adapt(replace(asked, train=other), tmp_path / "stopped")
    monkeypatch.setattr(run, "make_topics", None)  # they are stored
    resumed = adapt(replace(asked, checkpoint_every=100), tmp_path / "stopped", said.append)
    assert any("going on after step 4 of 6" in line for line in said)
    assert resumed.reports == straight.reports
    names = ["model.safetensors", "config.json", "tokenizer.json"]
    one, two = tree(tmp_path / "straight"), tree(tmp_path / "stopped")
    assert [one[name] for name in names] == [two[name] for name in names]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stopped", "straight"]
    with pytest.raises(CoreInferError, match="exists already"):
        adapt(asked, tmp_path / "straight")


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(
    asked: AdaptSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = Trainer.advance
    monkeypatch.setattr(Trainer, "advance", lambda self: advance(self) * (float("nan") if self.step == 4 else 1))
    with pytest.raises(CoreInferError, match=r"the loss of step 4 is nan.*lower --rate from 0.003"):
        adapt(asked, tmp_path / "out")
    assert [path.name for path in (tmp_path / ".out.adapt").glob("step-*")] == ["step-2"]
    (tmp_path / ".out.adapt" / "step-2" / "state.safetensors").write_bytes(b"cut")
    with pytest.raises(CoreInferError, match=r"remove .* to begin anew"):
        adapt(asked, tmp_path / "out")


def test_all_settings_can_be_stored(asked: AdaptSettings, place: Path) -> None:
    base = loaded(place / "llama")
    corpus = read_corpus(asked.source, None, base.tokenizer, CONTEXT, 0)
    found = json.loads(json.dumps(run.facts(asked, base, corpus), default=str))
    assert {"train rate", "masks least", "priors rate", "weights", "data"} <= found.keys()
