"""How fast a long stage was, in tokens, and which share of what the machine can multiply that took.

A stage's work is 2 * weights read * tokens, and the attention between tokens; what else it does, such as activation
functions, texts read and results written, is what keeps it from the limit. Tokens are counted on some of the passages.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from coreinfer.bench.limits import multiplications
from coreinfer.embedder import Embedder
from coreinfer.mlp import shape_of
from coreinfer.models import find_mlps
from pipeline.record import Recorder

SAMPLE = 256  # passages whose tokens are counted
ROWS, GPU_ROWS = 2048, 16_384  # tokens of the product that is timed, as in the stages' own forwards


@dataclass(frozen=True)
class Work:
    """Of a stage: tokens and multiply-adds of an average passage, each counted twice; on what, in which dtype, and
    the (inputs, outputs) of its typical product.
    """

    tokens: float
    flops: float
    device: torch.device
    dtype: torch.dtype
    shape: tuple[int, int]


@dataclass(frozen=True)
class Speed:
    """Of a stage: tokens a second over all of its ``seconds``, FLOP/s of its products and those that the machine can.

    Where several workers share a machine's cores or GPUs, the limit is of one process: of all cores, or of one GPU.
    """

    tokens: int
    seconds: float
    tokens_per_second: float
    flops: float
    limit: float
    share: float
    dtype: str

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def sentence(row: dict[str, Any]) -> str:
    """A speed's row in words."""
    what = f"{row['limit'] / 1e12:.3g} TFLOP/s in {row['dtype']}"
    return f"{row['tokens_per_second']:,.0f} tokens/s, {row['share']:.0%} of what this machine multiplies ({what})"


def recording(recorder: Recorder, texts: Sequence[str]) -> Work:
    """Of recording passages such as these: all layers but the last down projection."""
    sizes = np.minimum(recorder.lengths(list(texts)), recorder.max_tokens)
    model, mlps = recorder.model, find_mlps(recorder.model)
    config, last = model.config.get_text_config(), shape_of(mlps[-1].down)
    assert last is not None
    weights = _weights(model.base_model) - last[0] * last[1]
    flops = _flops(config, weights, sizes, causal=True)
    return Work(float(sizes.mean()), flops, model.device, model.dtype, (config.hidden_size, mlps[0].width))


def embedding(embedder: Embedder, texts: Sequence[str]) -> Work | None:
    """Of embedding them; None for an embedder that is no Transformer of the usual kind."""
    inner = getattr(embedder.model[0], "auto_model", None)
    config: Any = getattr(inner, "config", None)
    if inner is None or not hasattr(config, "intermediate_size"):
        return None
    pieces = [piece for windows in embedder.windows(list(texts)) for piece in windows]
    sizes = np.array(embedder.lengths(pieces)) + embedder.model.tokenizer.num_special_tokens_to_add()
    flops = _flops(config, _weights(inner), sizes, causal=False) * len(pieces) / len(texts)
    shape = (config.hidden_size, config.intermediate_size)
    return Work(float(sizes.sum() / len(texts)), flops, inner.device, inner.dtype, shape)


def _weights(model: nn.Module) -> int:
    """Of the linear layers that every token goes through."""
    shapes = [shape_of(module) for path, module in model.named_modules() if not path.startswith("pooler")]
    return sum(shape[0] * shape[1] for shape in shapes if shape is not None and len(shape) == 2)


def _flops(config: Any, weights: int, sizes: NDArray[np.int64], causal: bool) -> float:
    """Of a text, on average over those of so many tokens."""
    wide = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    pairs = (sizes.astype(np.float64) ** 2).mean() / (2 if causal else 1)
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * wide * pairs
    return float(2 * weights * sizes.mean() + attention)


def speed(work: Work, passages: int, seconds: float) -> Speed:
    """Of a stage that did so many passages in so many seconds; the limit is measured now."""
    device, rows = str(work.device), GPU_ROWS if work.device.type == "cuda" else ROWS
    dtype = work.dtype if work.dtype.is_floating_point else torch.float32
    limit = multiplications(device, dtype, rows, *work.shape)
    tokens, flops = round(work.tokens * passages), work.flops * passages / seconds
    name = str(dtype).removeprefix("torch.")
    return Speed(tokens, seconds, tokens / seconds, flops, limit, flops / limit, name)
