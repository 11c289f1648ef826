"""Answer each prompt with the exported cluster that fits it, all behind one server of llama-cpp-python.

coreinfer export --to gguf --weights q8_0 -c 3 -c 7 --output models
python route_llama_server.py config models > server.json
python -m llama_cpp.server --config_file server.json &
python route_llama_server.py ask models "What is a share worth?" "How do plants grow?"
"""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

SERVER = "http://127.0.0.1:8000"


def config(folder, port=8000):
    """The server's settings: a model for each cluster, by the name of its folder."""
    names = [one["folder"] for one in json.loads((folder / "models.json").read_text())["models"]]
    models = [{"model": str(folder / name / "model.gguf"), "model_alias": name, "n_batch": 1} for name in names]
    return {"host": "127.0.0.1", "port": port, "models": models}


def routed(folder, prompts):
    """The name of each prompt's model."""
    command = [sys.executable, "-m", "cli", "route", "--models", folder, *prompts, "-q"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line)["model"] for line in lines]


def ask(model, prompt, server=SERVER, tokens=32):
    """The text that the server's model of this name continues the prompt by."""
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0}
    head = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server}/v1/completions", json.dumps(body).encode(), head)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["choices"][0]["text"]


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    if sys.argv[1] == "config":
        print(json.dumps(config(folder, *map(int, sys.argv[3:]))))
    else:
        for prompt, model in zip(sys.argv[3:], routed(folder, sys.argv[3:]), strict=True):
            print(f"{model}: {ask(model, prompt)!r}")
