"""llama.cpp itself, by llama-cpp-python's plain bindings: a loaded file and its context, one token a call."""

import ctypes
import os
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coreinfer.errors import CoreInferError
from coreinfer.llamacpp import missing
from coreinfer.llamacpp.handover import EMPTY, TYPES, Shape

ERROR = 4  # ggml's log level
_SAID = [""]  # llama.cpp's last complaint
_LISTENER: Any = None  # what llama.cpp calls must outlive it


@cache
def library() -> Any:
    """The bindings, with llama.cpp's own messages kept for errors instead of shown.

    Raises:
        CoreInferError: the extra is not installed, or cannot be loaded.
    """
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:  # it loads a shared library
        absent = isinstance(error, ModuleNotFoundError)
        raise missing("" if absent else f" ({str(error).splitlines()[0]})") from error
    global _LISTENER
    _LISTENER = llama_cpp.llama_log_callback(_listen)
    llama_cpp.llama_log_set(_LISTENER, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


def _listen(level: int, text: bytes, _: Any) -> None:
    if level == ERROR:
        _SAID[0] = text.decode("utf-8", "replace").strip()


class Session:
    """A GGUF file in llama.cpp, with room for ``context`` positions of one sequence.

    Raises:
        CoreInferError: llama.cpp refuses the file, or there is no memory.
    """

    def __init__(self, path: Path, context: int, shape: Shape, threads: int) -> None:
        self.shape, self.context, self.lib, _SAID[0] = shape, context, library(), ""
        how = self.lib.llama_model_default_params()
        how.n_gpu_layers = 0
        model = self.lib.llama_model_load_from_file(os.fsencode(path), how)
        if not model:
            raise CoreInferError(
                f"llama.cpp cannot load {path}: {_said()}; remove that file or choose another --runtime"
            )
        self.inner = self.lib.llama_init_from_model(model, self._settings(threads))
        weakref.finalize(self, _free, self.lib, model, self.inner)
        if not self.inner:
            raise CoreInferError(f"llama.cpp has no room for {context} positions: {_said()}; ask for fewer tokens")
        self.words = self.lib.llama_vocab_n_tokens(self.lib.llama_model_get_vocab(model))
        self.token = (self.lib.llama_token * 1)()

    def _settings(self, threads: int) -> Any:
        how = self.lib.llama_context_default_params()
        how.n_ctx, how.n_batch, how.n_ubatch = self.context, 1, 1  # prompts come as state
        how.n_threads = how.n_threads_batch = threads
        how.type_k = how.type_v = TYPES[self.shape.dtype]
        # On a CPU flash attention is the slower one in long texts, and it rounds float32 to float16.
        how.flash_attn_type = self.lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        how.swa_full, how.offload_kqv = False, False
        return how

    def restore(self, caches: bytes) -> None:
        """Let sequence 0 be what ``handover.sequence_state`` made.

        What llama.cpp puts before its caches, it is asked for; and what it understood is read back and compared, so
        that another format in another version is an error and no other text.
        """
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.inner), True)
        state = self._state()[: -EMPTY * self.shape.caches] + caches
        raw = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        if self.lib.llama_state_seq_set_data(self.inner, raw, len(state), 0) != len(state) or self._state() != state:
            raise CoreInferError(
                f"this llama.cpp keeps its cache in another way ({_said()}): install llama-cpp-python 0.3.36, or "
                "choose another --runtime"
            )

    def _state(self) -> bytes:
        """Of sequence 0, as llama.cpp writes it."""
        raw = (ctypes.c_uint8 * self.lib.llama_state_seq_get_size(self.inner, 0))()
        written = self.lib.llama_state_seq_get_data(self.inner, raw, len(raw), 0)
        return bytes(raw)[:written]

    def step(self, token: int) -> Tensor:
        """Feed a token; float32 logits (V,), which the next step overwrites."""
        self.token[0] = token
        if code := self.lib.llama_decode(self.inner, self.lib.llama_batch_get_one(self.token, 1)):
            raise CoreInferError(f"llama.cpp failed to decode (code {code}): {_said()}; choose another --runtime")
        found = self.lib.llama_get_logits_ith(self.inner, -1)
        return torch.from_numpy(np.ctypeslib.as_array(found, (self.words,)))


def _free(lib: Any, model: Any, inner: Any) -> None:
    if inner:
        lib.llama_free(inner)
    lib.llama_model_free(model)


def _said() -> str:
    return _SAID[0].rstrip(".") or "it does not say why"
