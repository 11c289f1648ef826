"""Answer each prompt with the exported cluster that fits it, or the dense model where none does: one server of
llama-cpp-python has them all.

coreinfer export --to gguf --weights q8_0 -c 3 -c 7 --output models
coreinfer export --to gguf --weights q8_0 -c -1 --keep 1 --output dense
python route_llama_server.py config models dense > server.json
python -m llama_cpp.server --config_file server.json &
python route_llama_server.py ask models "What is a share worth?" "How do plants grow?"
"""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

SERVER, DENSE = "http://127.0.0.1:8000", "dense"


def config(folder, dense, port=8000):
    """The server's settings: a model for each cluster, by the name of its folder, and the dense one."""
    names = [one["folder"] for one in json.loads((folder / "models.json").read_text())["models"]]
    places = {name: folder / name for name in names} | {DENSE: dense}
    models = [{"model": str(place / "model.gguf"), "model_alias": name, "n_batch": 1} for name, place in places.items()]
    return {"host": "127.0.0.1", "port": port, "models": models}


def routed(folder, prompts):
    """The name of each prompt's model; the dense one's where no cluster is near enough."""
    command = [sys.executable, "-m", "cli", "route", "--models", folder, *prompts, "-q"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [row["model"] if row["strong"] else DENSE for row in map(json.loads, lines)]


def ask(model, prompt, server=SERVER, tokens=32):
    """The text that the server's model of this name continues the prompt by."""
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0}
    body["repeat_penalty"] = 1  # the server's own is 1.1, which changes what a model says
    head = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server}/v1/completions", json.dumps(body).encode(), head)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["choices"][0]["text"]


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    if sys.argv[1] == "config":
        print(json.dumps(config(folder, Path(sys.argv[3]), *map(int, sys.argv[4:]))))
    else:
        for prompt, model in zip(sys.argv[3:], routed(folder, sys.argv[3:]), strict=True):
            print(f"{model}: {ask(model, prompt)!r}")
