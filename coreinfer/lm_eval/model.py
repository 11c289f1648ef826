"""The model type ``coreinfer`` of lm-evaluation-harness 0.4.13; importing this makes it known there."""

from contextlib import closing
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from coreinfer.engine import Engine
from coreinfer.errors import CoreInferError
from coreinfer.lm_eval.scoring import Scorer
from coreinfer.paths import DEMO_CLUSTERS
from coreinfer.prompts import render
from coreinfer.settings import check_keep

ENDS = ("max_gen_toks", "until", "do_sample", "temperature", "top_p", "top_k")  # what tasks may ask of a generation


@register_model("coreinfer")
class CoreInferLM(TemplateLM):  # type: ignore[misc]
    """``--model_args pretrained=MODEL,artifact=FOLDER,policy=auto,keep=0.4``; all may be left out.

    One request at a time: each has its own neurons. A rolling log-likelihood has no context to choose by but what came
    before each window, and before the first one nothing.
    """

    def __init__(
        self, pretrained: str | None = None, artifact: str | None = None, policy: Any = "auto",
        keep: float | None = None, embedder: str | None = None, dtype: str = "auto", device: str | None = None,
        max_gen_toks: int = 256, batch_size: Any = None, max_batch_size: Any = None,
    ) -> None:  # fmt: skip
        """``batch_size``, ``max_batch_size``: what the harness passes to every model; nothing is batched here."""
        super().__init__()
        if keep is not None:
            check_keep(float(keep))
        chosen = DEMO_CLUSTERS if artifact is None else artifact
        self.engine = Engine.load(chosen, model=pretrained, embedder=embedder, dtype=dtype, device=_there(device))
        self.scorer = Scorer(self.engine, policy, None if keep is None else float(keep))
        self.most, self.tokenizer = int(max_gen_toks), self.engine.tokenizer

    @property
    def eot_token_id(self) -> int:
        """The end-of-text token, which begins a text without a context too."""
        token = self.tokenizer.eos_token_id
        if not isinstance(token, int):
            raise CoreInferError(f"the tokenizer's end-of-text token is {token!r}: give a model that has one")
        return token

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    @property
    def max_length(self) -> int:
        return self.scorer.longest - 1

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        special = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer(string, verbose=False, **special)["input_ids"])

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return render(self.tokenizer, chat_history)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return str(getattr(self.tokenizer, "chat_template", None) or "")

    def _loglikelihood_tokens(self, requests: list[Any], disable_tqdm: bool = False, **_: Any) -> list[Any]:
        out = []
        for texts, context, continuation in tqdm(requests, desc="log-likelihoods", disable=disable_tqdm):
            made = self.scorer.score(context, continuation)
            out.append(made)
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, made)
        return out

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        out = []
        for text in (request.args[0] for request in tqdm(requests, desc="texts", disable=disable_tqdm)):
            windows = get_rolling_token_windows(
                self.tok_encode(text, add_special_tokens=False), self.eot_token_id, self.max_length, 1
            )
            total = sum(self.scorer.score(*make_disjoint_window(window))[0] for window in windows)
            out.append(total)
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return out

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        out = []
        for context, how in (request.args for request in tqdm(requests, desc="generations", disable=disable_tqdm)):
            made = self._generated(context, dict(how))
            out.append(made)
            self.cache_hook.add_partial("generate_until", (context, how), made)
        return out

    def _generated(self, context: str, how: dict[str, Any]) -> str:
        until = [how["until"]] if isinstance(how.get("until"), str) else list(how.get("until") or ())
        if odd := sorted(set(how) - set(ENDS)):
            raise CoreInferError(f"the task generates with {odd[0]}={how[odd[0]]!r}, which coreinfer does not: drop it")
        most = int(how.get("max_gen_toks", self.most))
        sampled = bool(how.get("do_sample")) and float(how.get("temperature", 1.0)) > 0
        options = {name: how[name] for name in ("temperature", "top_p", "top_k") if name in how} if sampled else {}
        pieces = self.engine.stream(
            self._fitting(context, most), policy=self.scorer.policy, keep=self.scorer.keep, max_new_tokens=most,
            do_sample=sampled, **options,
        )  # fmt: skip
        text = ""
        with closing(pieces):  # ends the generation where a word to stop at came
            for piece in pieces:
                text += piece if isinstance(piece, str) else ""
                if any(word in text for word in until if word):
                    break
        return min((text.split(word)[0] for word in until if word), key=len, default=text)

    def _fitting(self, context: str, new: int) -> str:
        """The end of a context that leaves room for so many tokens."""
        ids, room = self.tok_encode(context), max(1, self.max_length - new)
        return context if len(ids) <= room else str(self.tokenizer.decode(ids[-room:], skip_special_tokens=True))


def _there(device: str | None) -> str:
    """The harness names a GPU unless it is told otherwise, also where there is none."""
    return "cpu" if device is None or (device.startswith("cuda") and not torch.cuda.is_available()) else device
