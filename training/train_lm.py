"""Train a small SwiGLU Llama, core-mask-aware, on any corpus that build-clusters reads, and save it for Hugging Face.

``python -m training.train_lm train.parquet --held-out heldout.parquet --output lm`` takes 4 minutes on one H200; the
demo LM was trained by this recipe.
"""

import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from coreinfer.errors import CoreInferError
from training.core_mask import CoreMask
from training.tokens import load_tokenizer, read_texts, token_row, train_tokenizer

RATE, WARMUP, FLAT, LAST = 2e-3, 200, 0.3, 0.02  # learning rate; steps up, share of steps flat, then down to LAST of it
PROMPT = 64  # tokens whose energy decides, where the held-out loss at a keep is measured


def make_model(vocabulary: int, hidden: int, layers: int, heads: int, width: int, context: int) -> LlamaForCausalLM:
    """A Llama with tied embeddings and random weights."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=hidden, intermediate_size=width, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=context, hidden_act="silu",
            tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, pad_token_id=1,
        )
    )  # fmt: skip


def rate_at(step: int, steps: int) -> float:
    """The learning rate: a warm-up, a flat part, a straight way down."""
    done = step / steps
    return RATE * min(1.0, (step + 1) / WARMUP) * (1.0 if done < FLAT else max(LAST, 1 - (done - FLAT) / (1 - FLAT)))


def optimizer_of(model: LlamaForCausalLM) -> torch.optim.Optimizer:
    """AdamW; norms do not decay."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95), fused=model.device.type == "cuda")


def loss_of(model: LlamaForCausalLM, ids: Tensor) -> Tensor:
    """Mean next-token loss, nats, of token windows (B, T + 1)."""
    with torch.autocast(ids.device.type, torch.bfloat16):
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, mask: CoreMask, row: Tensor, context: int, keep: float) -> float:
    """Mean loss over consecutive windows of a token row, on the core neurons from position ``PROMPT`` on."""
    count = (len(row) - 1) // context
    windows = row[: count * context + 1].unfold(0, context + 1, context)
    total = 0.0
    for some in torch.split(windows, 16):
        mask.fix(len(some), min(PROMPT, context // 2), keep, str(row.device))
        total += float(loss_of(model, some.long())) * len(some)
    return total / count


def train(
    model: LlamaForCausalLM, row: Tensor, held: Tensor, steps: int, batch: int, share: float, report: int
) -> list[float]:
    """Train in place on random windows of a token row; prints the held-out loss and returns the training losses."""
    context, device = int(model.config.max_position_embeddings), str(model.device)
    mask, optimizer = CoreMask(model), optimizer_of(model)
    step_loss = torch.compile(loss_of) if device != "cpu" else loss_of
    offsets, losses, begun = torch.arange(context + 1, device=device), list[Tensor](), time.perf_counter()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps)
        starts = torch.randint(0, len(row) - context, (batch, 1), device=device)
        mask.draw(batch, context, share, device)
        loss = step_loss(model, row[starts + offsets].long())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        if (step + 1) % report == 0 or step + 1 == steps:
            dense, sparse = (held_out_loss(model, mask, held, context, keep) for keep in (1.0, 0.4))
            speed = (step + 1) * batch * context / (time.perf_counter() - begun)
            print(
                f"step {step + 1:,} of {steps:,}: train {loss.item():.3f}, held out {dense:.4f} dense, "
                f"{sparse:.4f} at keep 0.4; {speed:,.0f} tokens/s",
                flush=True,
            )
    mask.remove()
    return [float(x) for x in losses]


def main(
    corpus: Annotated[str, typer.Argument(help="Anything that build-clusters reads.")],
    held_out: Annotated[str, typer.Option(help="Texts to report the loss on; never trained on.")],
    output: Annotated[Path, typer.Option(help="Folder of the model; must not exist.")],
    tokenizer: Annotated[str | None, typer.Option(help="Name or folder; without one, a BPE is trained.")] = None,
    vocabulary: Annotated[int, typer.Option(help="Of a trained BPE.")] = 8192,
    hidden: int = 320,
    layers: int = 6,
    heads: int = 5,
    width: Annotated[int, typer.Option(help="MLP neurons a layer.")] = 2560,
    context: int = 512,
    mask_share: Annotated[float, typer.Option(help="Share of sequences trained on core neurons.")] = 0.7,
    batch: int = 64,
    steps: int = 10_900,
    report: Annotated[int, typer.Option(help="Steps between held-out losses.")] = 1000,
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
    seed: int = 0,
) -> None:
    """Train the demo language model, or one like it on another corpus."""
    if output.exists():
        raise CoreInferError(f"{output} exists already: choose another --output")
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    texts = read_texts(corpus)
    tok = load_tokenizer(tokenizer) if tokenizer else train_tokenizer(texts, vocabulary)
    row = token_row(texts, tok, seed).to(device)
    held = token_row(read_texts(held_out), tok).to(device)
    for what, tokens in ((corpus, row), (held_out, held)):
        if len(tokens) <= context:
            raise CoreInferError(f"{what} has {len(tokens)} tokens, less than one context of {context}: give more text")
    model = make_model(len(tok), hidden, layers, heads, width, context)
    model.to(device)  # type: ignore[arg-type]
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}M parameters, {len(row):,} tokens", flush=True)
    train(model, row, held, steps, batch, mask_share, report)
    model.to(torch.bfloat16).save_pretrained(output)  # type: ignore[arg-type]
    tok.save_pretrained(output)


if __name__ == "__main__":
    try:
        typer.run(main)
    except CoreInferError as error:
        raise SystemExit(f"error: {error}") from None
