"""A bundle holds a checkpoint's neurons, and is made anew when it does not."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from families import HIDDEN, LAYERS, WIDTH, build, down_modules
from safetensors import SafetensorError
from streamed import budget, each, opened, saved

from coreinfer import CoreInferError
from coreinfer.memory import bundle
from coreinfer.memory.bundle import MANIFEST, Shape, layer_file
from coreinfer.memory.checkpoint import Checkpoint
from coreinfer.memory.linear import StreamedLinear, weights_of
from coreinfer.memory.mapped import Mapped
from coreinfer.models import find_mlps, fingerprint
from coreinfer.paths import DEMO_LM

SHAPE = Shape(LAYERS, WIDTH, 3, HIDDEN, "float32")


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return saved("Llama", tmp_path / "lm")


def made(llama: Path) -> Path:
    """The model's bundle, after it was opened."""
    budget(llama, llama.parent / "bundles").load()
    (place,) = (llama.parent / "bundles").iterdir()
    return place


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """What is a day old: another may still be being written."""
    opened("Llama", tmp_path)
    (made,) = (tmp_path / "bundles").iterdir()
    old, new = (tmp_path / "bundles" / f".{made.name}.{word}.part" for word in ("old", "new"))
    for folder in (old, new):
        (folder / "new").mkdir(parents=True)
    os.utime(old, (0, 0))
    shutil.rmtree(made)
    opened("Llama", tmp_path)
    assert {path.name for path in (tmp_path / "bundles").iterdir()} == {made.name, new.name}


@each
def test_round_trip(name: str, tmp_path: Path) -> None:
    """Each weight is what it was, by its name, and so is the model's fingerprint."""
    model, whole = opened(name, tmp_path), build(name)
    wanted = dict(whole.named_parameters())
    for path, weight in weights_of(model):
        assert torch.equal(weight, wanted.pop(path)), path
    assert set(wanted) <= {"lm_head.weight"}  # a tied one
    assert fingerprint(model) == fingerprint(whole)
    assert all(isinstance(mlp.down, StreamedLinear) for mlp in find_mlps(model))
    assert not any(p.requires_grad for p in model.parameters())


def test_a_neuron_is_contiguous(llama: Path) -> None:
    layer = Mapped(made(llama), SHAPE).layer(1)
    assert layer.is_contiguous()
    mlp: Any = build("Llama").model.layers[1].mlp
    for neuron in (0, 17, WIDTH - 1):
        gate, up, down = layer[neuron]
        assert torch.equal(gate, mlp.gate_proj.weight[neuron])
        assert torch.equal(up, mlp.up_proj.weight[neuron])
        assert torch.equal(down, down_modules(build("Llama"), "Llama")[1].weight[:, neuron])  # type: ignore[index]


def test_shards_and_another_dtype(tmp_path: Path) -> None:
    place = saved("Llama", tmp_path / "lm", max_shard_size="20KB")
    assert len(list(place.glob("model-*.safetensors"))) > 3
    model = budget(place, tmp_path / "bundles", dtype="bfloat16").load()
    wanted = dict(build("Llama").bfloat16().named_parameters())
    assert all(torch.equal(weight, wanted[path]) for path, weight in weights_of(model))


def stamp(place: Path) -> tuple[int, int]:
    """What tells whether a bundle was written again."""
    stat = (place / MANIFEST).stat()
    return stat.st_ino, stat.st_mtime_ns


def test_it_is_written_once(llama: Path) -> None:
    before = stamp(place := made(llama))
    assert made(llama) == place
    assert stamp(place) == before


def cut(place: Path, llama: Path) -> None:
    os.truncate(layer_file(place, 1), 999)


def lacking(place: Path, llama: Path) -> None:
    layer_file(place, 0).unlink()


def garbled(place: Path, llama: Path) -> None:
    (place / MANIFEST).write_text("{")


def older(place: Path, llama: Path) -> None:
    facts = json.loads((place / MANIFEST).read_text())
    (place / MANIFEST).write_text(json.dumps(facts | {"version": 0}))


def another(place: Path, llama: Path) -> None:
    """The checkpoint is fine-tuned meanwhile."""
    model = build("Llama")
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.5)
    model.save_pretrained(llama)


@pytest.mark.parametrize("damage", [cut, lacking, garbled, older, another])
def test_what_is_not_the_checkpoints_is_made_anew(llama: Path, damage: Any) -> None:
    before = stamp(place := made(llama))
    damage(place, llama)
    model = budget(llama, llama.parent / "bundles").load()
    assert stamp(place) != before
    assert fingerprint(model) != fingerprint(build("Llama")) if damage is another else True
    assert sorted(path.name for path in place.parent.iterdir()) == [place.name]
    assert bundle.ready(place, SHAPE, Checkpoint(str(llama)))


def test_a_changed_byte_is_found_when_it_is_read(llama: Path) -> None:
    file = layer_file(made(llama), 1)
    raw = bytearray(file.read_bytes())
    raw[-5] ^= 1
    file.write_bytes(raw)
    model: Any = budget(llama, llama.parent / "bundles").load()
    with pytest.raises(CoreInferError, match=r"layer-001.safetensors is not what was written there: delete .*again"):
        model(input_ids=torch.tensor([[5, 6]]))


def test_what_is_no_bundle_is_not_overwritten(llama: Path) -> None:
    place = made(llama)
    shutil.rmtree(place)
    place.mkdir()
    (place / "thesis.txt").write_text("years of work")
    with pytest.raises(CoreInferError, match="is no bundle, so it is not overwritten: move that away"):
        made(llama)
    assert (place / "thesis.txt").read_text() == "years of work"


FULL = "No space left on device"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, FULL), SafetensorError(f"I/O error: {FULL}")])
def test_interrupted_writing_leaves_nothing(llama: Path, monkeypatch: pytest.MonkeyPatch, error: Any) -> None:
    written = list[Path]()

    def save(tensors: Any, file: Path) -> None:
        if written:
            raise error
        written.append(file)
        file.write_bytes(b"half of it")

    monkeypatch.setattr(bundle, "save_file", save)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else CoreInferError) as stop:
        made(llama)
    if error is not KeyboardInterrupt:
        assert FULL in str(stop.value)
        assert str(stop.value).endswith("choose another --bundles")
    assert written
    assert [path.name for path in llama.parent.iterdir()] == ["lm"]


def test_a_disk_without_room_is_refused_at_once(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=1000))
    with pytest.raises(CoreInferError, match=r"the neurons take 0.1 MiB in .*, and 0.1 MiB are free there: free some"):
        made(llama)
    assert [path.name for path in llama.parent.iterdir()] == ["lm"]


def test_a_checkpoint_that_lacks_a_weight_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for gone, said in (
        ("model.layers.1.mlp.up_proj.weight", "0 tensors that could be"),
        ("model.norm.weight", "no weights for"),
    ):
        place = saved("Mistral", tmp_path / gone)
        held = load_file(place / "model.safetensors")
        del held[gone]
        save_file(held, place / "model.safetensors", {"format": "pt"})
        with pytest.raises(CoreInferError, match=f"cannot load the language model .*{said} {gone}"):
            budget(place, tmp_path / "bundles").load()


def test_weights_of_another_shape_are_refused(llama: Path) -> None:
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    with pytest.raises(CoreInferError, match=r"gate_proj.weight has the shape \(48, 32\), which is not the config's"):
        made(llama)


def test_names_with_and_without_the_models_prefix() -> None:
    found = Checkpoint(str(DEMO_LM))
    key = next(key for key in found.keys if key.endswith("layers.0.mlp.up_proj.weight"))
    for name in (key, f"language_model.{key}", key.removeprefix("model.")):
        assert found.key_of(name) == key
    with pytest.raises(ValueError, match="holds 6 tensors that could be"):
        found.key_of("up_proj.weight")
