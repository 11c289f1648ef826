"""What decides the numbers of each long stage, as facts that are hashed, and compared where parts of several machines
meet. How many workers there were is not among them; how many threads each has is, on a CPU: libraries split a product
among them also along its sum, whose parts are then added in another order. So every worker, on whatever machine, has as
many as the process that began. (Products by blocks of rows, each by one thread, are the same on any number; but
recording took 1.15 times as long so, and embedding 1.4 times.)
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from platform import node
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

import coreinfer
from coreinfer.errors import CoreInferError
from coreinfer.machine import versions
from coreinfer.manifest import ModelIdentity
from coreinfer.settings import StatisticSettings
from coreinfer.wording import flat
from pipeline.data import Candidates
from pipeline.passages import digest_of
from pipeline.shards.plan import Plan
from pipeline.shards.store import Facts, Store, facts_of

# As torch.cpu.get_capabilities calls them.
UNITS = (
    "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "amx_fp16", "bf16", "i8mm", "sve_bf16", "sme",
)  # fmt: skip
LIMITS = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")  # how a user keeps libraries from some of them


def processor(device: str) -> str:
    """The kind of processor, as far as numbers depend on it: a GPU's name, or a CPU's instructions."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    kind = [torch.device(device).type, torch.backends.cpu.get_cpu_capability(), *_matrix_units()]
    return " ".join(kind + [os.environ[name] for name in LIMITS if name in os.environ])


def _matrix_units() -> list[str]:
    """A CPU's instructions for matrices of few bits, which round otherwise than what stands in for them."""
    if not hasattr(torch.cpu, "get_capabilities"):  # before torch 2.11
        return ["amx_tile"] * bool(torch.cpu._is_amx_tile_supported())
    found = torch.cpu.get_capabilities()
    return [name for name in UNITS if found.get(name)]


def _threads(device: str) -> int | None:
    """Of a forward; a GPU's numbers do not depend on them."""
    return torch.get_num_threads() if torch.device(device).type == "cpu" else None


def check_here(store: Store, device: str) -> None:
    """Refuse to work for a store whose parts this process would make otherwise.

    Raises:
        CoreInferError: its facts are of another processor or other versions, or are not to be seen from here.
    """
    wanted = facts_of(store)
    here = {"processor": processor(device), "version": {name: _version(name) for name in wanted["version"]}}
    mine, theirs = flat(here), flat(wanted)
    for name, value in mine.items():
        _check_same(name, value, theirs[name])


def check_fact(store: Store, name: str, value: str) -> None:
    """Refuse to work for a store that was begun with another ``value`` of this fact.

    Raises:
        CoreInferError: it was, or is not to be seen from here.
    """
    _check_same(name, value, facts_of(store)[name])


def _check_same(name: str, mine: Any, theirs: Any) -> None:
    if mine != theirs:
        raise CoreInferError(
            f"{node()} has {name} {mine!r}, the build was begun with {theirs!r}: use machines of one kind with the "
            "same versions"
        )


def _version(name: str) -> str:
    try:
        return coreinfer.__version__ if name == "coreinfer" else installed(name)
    except PackageNotFoundError:
        return "none"


def embed_facts(passages: Path, plan: Plan, embedder: ModelIdentity, encoder: str, device: str) -> Facts:
    """Of the embeddings; ``encoder``: packed or padded."""
    return {
        "corpus": {"sha256 of its texts": digest_of(passages), "passages": plan.passages},
        "--shard-passages": plan.size, "embedder": _weights(embedder), "encoder": encoder,
        "processor": processor(device), "threads": _threads(device),
        "version": versions() | {"sentence-transformers": installed("sentence-transformers")},
    }  # fmt: skip


def cluster_facts(embedded: Facts, kept: NDArray[np.int64], ks: Iterable[int], seed: int) -> Facts:
    """Of the clusterings."""
    return {
        "embeddings": embedded, "--clusters": list(ks), "--seed": seed, "passages built from": array_digest(kept),
        "version": {"faiss": faiss.__version__},
    }  # fmt: skip


def record_facts(
    embedded: Facts, options: Candidates, model: ModelIdentity, statistic: StatisticSettings, loops: str, device: str,
    seed: int,
) -> Facts:  # fmt: skip
    """Of the recorded sums; ``loops``: see ``Recorder.reduced_by``. Clusters matter by what they are."""
    return {
        "corpus": embedded["corpus"], "--shard-passages": embedded["--shard-passages"],
        "model": _weights(model), "statistic": asdict(statistic), "loops": loops, "processor": processor(device),
        "threads": _threads(device), "version": versions(), "--seed": seed,
        "--clusters": [len(each) for each in options.centroids],
        "cluster of each passage": array_digest(options.labels),
    }  # fmt: skip


def measure_facts(model: ModelIdentity, ids: NDArray[np.int64], loops: str, device: str) -> Facts:
    """Of what is measured with a model on held-out texts, whose token ``ids`` these are."""
    return {
        "model": _weights(model),
        "held-out texts": array_digest(ids),
        "loops": loops,
        "processor": processor(device),
        "threads": _threads(device),
        "version": versions(),
    }


def _weights(model: ModelIdentity) -> Facts:
    """A model by what it computes, whatever it is called."""
    return {name: value for name, value in asdict(model).items() if name != "id"}


def array_digest(array: NDArray[Any]) -> str:
    """sha256 of an array's shape, type and content."""
    digest = hashlib.sha256(f"{array.shape}{array.dtype.str}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
