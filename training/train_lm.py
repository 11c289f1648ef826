"""Train a small SwiGLU Llama from scratch, core-mask-aware: the trainer of ``coreinfer adapt`` on a fresh model.

``python -m training.train_lm train.parquet --held-out heldout.parquet --tokenizer artifacts/demo/lm --output lm`` is
the demo LM's recipe. Its data is seen about 25 times, so weights decay strongly: with 0.1 instead of 0.6 the held-out
loss is 3.07 instead of 2.81.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from coreinfer.errors import CoreInferError
from coreinfer.settings import one_of
from pipeline.adapt.run import Base, train
from pipeline.adapt.settings import AdaptSettings, MaskSettings, TrainSettings, check_new
from pipeline.sources import SourceSettings
from training.tokens import read_texts, train_tokenizer


def make_model(
    vocabulary: int, hidden: int, layers: int, heads: int, width: int, context: int, activation: str = "silu"
) -> LlamaForCausalLM:
    """A Llama with tied embeddings and random weights; its MLPs are gated by ``activation`` (silu: SwiGLU)."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=hidden, intermediate_size=width, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=context,
            hidden_act=activation, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, pad_token_id=1,
        )
    )  # fmt: skip


def tokenizer_for(corpus: str, given: str | None, vocabulary: int) -> PreTrainedTokenizerBase:
    """The one given by name or folder; else a BPE of the corpus.

    Raises:
        CoreInferError: the one given cannot be loaded, or has other special tokens than the model.
    """
    if given is None:
        return train_tokenizer(read_texts(corpus), vocabulary)
    try:
        made: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(given)
    except (OSError, ValueError) as error:
        raise CoreInferError(f"cannot load the tokenizer {given!r}: give a Hub name or a folder") from error
    if made.bos_token_id != 0:
        raise CoreInferError(
            f"the tokenizer {given!r} begins texts with token {made.bos_token_id}, the model with 0: leave out "
            "--tokenizer to train one"
        )
    return made


def main(
    corpus: Annotated[str, typer.Argument(help="Anything that build-clusters reads.")],
    output: Annotated[Path, typer.Option(help="Folder of the model; must not exist.")],
    held_out: Annotated[str | None, typer.Option(help="Texts to report on. [default: 2% of the corpus]")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Name or folder; without one, a BPE is trained.")] = None,
    vocabulary: Annotated[int, typer.Option(help="Of a trained BPE.")] = 8192,
    hidden: int = 320,
    layers: int = 6,
    heads: int = 5,
    width: Annotated[int, typer.Option(help="MLP neurons a layer.")] = 2560,
    context: int = 512,
    activation: Annotated[str, typer.Option(help="Of the gates: silu or relu.")] = "silu",
    mask_share: Annotated[float, typer.Option(help="Share of sequences trained on core neurons; 0: plain.")] = 0.8,
    batch: int = 64,
    micro: Annotated[int, typer.Option(help="Sequences of one forward; fewer need less memory.")] = 64,
    steps: int = 17_300,
    rate: float = 2e-3,
    weight_decay: float = 0.6,
    report_every: Annotated[int, typer.Option(help="Steps between held-out losses and between checkpoints.")] = 1000,
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
    dtype: str = "auto",
    seed: int = 0,
) -> None:
    """Train the demo language model, or one like it on another corpus; the same command goes on where it stopped."""
    settings = AdaptSettings(
        SourceSettings(corpus), "fresh", held_out,
        masks=MaskSettings(share=mask_share, unmasked=0.0),
        train=TrainSettings(steps, batch, micro, context, rate=rate, weight_decay=weight_decay, seed=seed),
        report_every=report_every, checkpoint_every=report_every, device=device, dtype=dtype,
    )  # fmt: skip
    check_new(output)
    one_of("--activation", activation, ("silu", "relu"))
    tok = tokenizer_for(corpus, tokenizer, vocabulary)
    torch.manual_seed(seed)
    model = make_model(len(tok), hidden, layers, heads, width, context, activation)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}M parameters", flush=True)
    model.to(device)  # type: ignore[arg-type]
    report = train(settings, Base(None, model, tok, torch.bfloat16), output, lambda text: print(text, flush=True))
    print(f"{output} in {report.seconds:,.0f} seconds")


if __name__ == "__main__":
    from coreinfer.libraries import quiet_libraries

    quiet_libraries()
    try:
        typer.run(main)
    except CoreInferError as error:
        print(f"error: {error}")
        raise SystemExit(2) from None
