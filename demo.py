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
OUT_OF_CORPUS = ("Les élèves de la classe ont chanté une vieille chanson près de la rivière, puis",)


def run(*arguments: str) -> None:
    """Show a coreinfer command, then run it; stop where it fails."""
    print(f"\n\033[1m$ coreinfer {shlex.join(arguments)}\033[0m", flush=True)
    subprocess.run([sys.executable, "-m", "cli", *arguments], check=True)


def title(text: str) -> None:
    print(f"\n── {text} " + "─" * max(0, 100 - len(text)), flush=True)


def main() -> None:
    begun = time.perf_counter()
    title("Build: passages become semantic clusters with their core neurons")
    run("build-clusters", PASSAGES, "--output", str(OUT / "clusters"), "--overwrite")
    run("inspect", str(OUT / "clusters"), "--top", "8")
    run("inspect", "--top", "8", "--map", str(OUT / "map.png"))
    title("Predict, with the clusters that ship: which neurons does a prompt need?")
    run("predict", *IN_CORPUS, *OUT_OF_CORPUS)
    title("Generate: the same continuation dense, and on 40% and 20% of the MLP neurons")
    for more in (("--policy", "dense"), ("--keep", "0.4"), ("--keep", "0.2")):
        run("generate", IN_CORPUS[0], *more, "--max-new-tokens", "60")
    title("Measure: what each policy costs on the demo passages, which the shipped clusters never saw")
    run("evaluate", PASSAGES, "--keep", "0.4", "--keep", "0.2", "--limit", "64")
    print(f"\nDone in {time.perf_counter() - begun:.0f} s; the map is {OUT / 'map.png'}.")


if __name__ == "__main__":
    main()
