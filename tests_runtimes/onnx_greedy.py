"""A decoder's ONNX file in ONNX Runtime: a step on the cache, and greedy decoding. Nothing of coreinfer."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


class Onnx:
    """An opened file on one thread."""

    def __init__(self, path: Path) -> None:
        how = onnxruntime.SessionOptions()
        how.intra_op_num_threads = how.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), how, providers=["CPUExecutionProvider"])
        self.past = [one for one in self.session.get_inputs() if one.name.startswith("past_key_values")]

    def step(self, ids: Any, caches: list[Any] | None, mask: Any = None) -> tuple[Any, list[Any]]:
        """Logits (B, T, V) of ids (B, T) behind the caches, and the new caches."""
        if caches is None:
            caches = [np.zeros((len(ids), one.shape[1], 0, one.shape[3]), np.float32) for one in self.past]
        if mask is None:
            mask = np.ones((len(ids), caches[0].shape[2] + ids.shape[1]), np.int64)
        named = {one.name: cache for one, cache in zip(self.past, caches, strict=True)}
        logits, *made = self.session.run(None, {"input_ids": ids, "attention_mask": mask, **named})
        return logits, made

    def greedy(self, ids: list[int], new: int) -> list[int]:
        """``new`` tokens behind ``ids``."""
        made, caches, step = list[int](), None, np.array([ids], np.int64)
        for _ in range(new):
            logits, caches = self.step(step, caches)
            made.append(int(logits[0, -1].argmax()))
            step = np.array([made[-1:]], np.int64)
        return made
