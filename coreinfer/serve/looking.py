"""What the server knows, without a word generated: core neurons of a prompt, embeddings, the model."""

import asyncio
import base64
import json
import time
from functools import partial
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from coreinfer import page
from coreinfer.errors import CoreInferError
from coreinfer.match import Match
from coreinfer.neurons import NeuronSet
from coreinfer.output import prediction_row
from coreinfer.policy import Prediction
from coreinfer.prompts import Prompt
from coreinfer.routing import route_of, row_of
from coreinfer.serve.faults import Refused
from coreinfer.serve.metrics import fallback
from coreinfer.serve.schemas import CoreNeurons, Embeddings, Routed
from coreinfer.serve.service import Service
from coreinfer.serve.versions import Version
from coreinfer.settings import Policy

ARROW = "application/vnd.apache.arrow.stream"
LONGEST = 32  # characters of a token, for a text that is refused before it is cut into them
BEGUN = int(time.time())


async def core_neurons(service: Service, request: Request, body: CoreNeurons) -> Response:
    """Which neurons a prompt needs, and why: JSON, or Arrow where that is accepted."""
    service.check_model(body.model)
    policy, keep = service.policy_of(body)
    prompt: Prompt = body.prompt if body.prompt is not None else service.turns_of(body.messages or [])
    (asked,) = await service.encoded([prompt], "prompt" if body.messages is None else "messages")
    found = await service.asked_by(request, lambda: _predicted(service, prompt, policy, keep))
    if found is None:
        return Response(status_code=499)  # nobody reads it
    ((version, prediction, match),) = found
    beside = None
    if body.compare:
        beside = await asyncio.to_thread(page.compare, version.artifact, prediction)
    facts = _facts(version, prediction, match) | {"prompt_tokens": asked.ids.shape[1]}
    headers = {"X-Coreinfer-Artifact": version.digest}
    assert prediction.neurons is not None
    if ARROW in request.headers.get("accept", ""):
        return Response(arrow(prediction.neurons, facts), media_type=ARROW, headers=headers)
    ids = {"neurons": [layer.tolist() for layer in prediction.neurons.layers]} if body.neurons else {}
    more = ids | ({} if beside is None else {"compare": beside})
    return JSONResponse({"object": "core_neurons", "model": service.model, **facts, **more}, headers=headers)


def _predicted(
    service: Service, prompt: Prompt, policy: Policy, keep: float | None
) -> tuple[Version, Prediction, Match]:
    """In the engine's thread."""
    version, match = _matched(service, prompt)
    return version, version.engine.predict(prompt, policy, version.keep(keep), match), match


def _facts(version: Version, prediction: Prediction, match: Match) -> dict[str, Any]:
    made = version.artifact
    row = prediction_row("", prediction, False)
    del row["prompt"]
    near = zip(match.clusters.tolist(), match.similarities.tolist(), strict=True)
    nearest = [{"cluster": c, "similarity": round(s, 6), "terms": made.terms[c]} for c, s in near]
    return {
        "artifact": version.digest, **row, "terms": made.terms[prediction.cluster], "strong_from": made.policy.strong,
        "fallback": fallback(prediction), "nearest": nearest, "layers": made.manifest.layers,
        "width": made.manifest.width,
    }  # fmt: skip


def arrow(neurons: NeuronSet, facts: dict[str, Any]) -> bytes:
    """A row a layer, and the rest as JSON under ``coreinfer`` in the schema's metadata."""
    import pyarrow as pa

    kinds = {"layer": pa.int32(), "neurons": pa.list_(pa.int32())}
    schema = pa.schema(kinds, metadata={"coreinfer": json.dumps(facts, ensure_ascii=False)})
    columns = [pa.array(range(len(neurons.layers)), kinds["layer"]), pa.array([*neurons.layers], kinds["neurons"])]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return bytes(sink.getvalue().to_pybytes())


async def routed(service: Service, request: Request, body: Routed) -> Response:
    """Which cluster a prompt belongs to: its embedding alone, no language model runs."""
    service.check_model(body.model)
    await service.encoded([body.prompt], "prompt")
    found = await service.asked_by(request, lambda: _matched(service, body.prompt))
    if found is None:
        return Response(status_code=499)  # nobody reads it
    ((version, match),) = found
    row = row_of(route_of(version.artifact, match, match.cluster))
    return JSONResponse({"object": "route", **row}, headers={"X-Coreinfer-Artifact": version.digest})


def _matched(service: Service, prompt: Prompt) -> tuple[Version, Match]:
    """In the engine's thread."""
    version = service.worker.version
    (match,) = version.engine.match([prompt])
    return version, match


async def embeddings(service: Service, request: Request, body: Embeddings) -> Response:
    """Unit vectors of the embedder, by which prompts are matched."""
    embedder = service.artifact.manifest.embedder.id
    if body.model not in (None, embedder, service.model):
        raise Refused(404, f"the model is {str(body.model)[:80]!r}, the embedder here is {embedder!r}: give that",
                      "model", "model_not_found")  # fmt: skip
    texts = [body.input] if isinstance(body.input, str) else body.input
    for number, text in enumerate(texts):
        if not text.strip():
            raise Refused(400, f"input {number} is empty: give it at least one word", "input")
    try:
        found = await service.asked_by(request, *(partial(_embedded, service, n, t) for n, t in enumerate(texts)))
    except CoreInferError as error:
        raise Refused(400, str(error), "input") from error
    if found is None:
        return Response(status_code=499)
    packed = body.encoding_format == "base64"
    data = [
        {"object": "embedding", "index": i, "embedding": _packed(row) if packed else row.tolist()}
        for i, (row, _) in enumerate(found)
    ]
    count = sum(tokens for _, tokens in found)
    used = {"prompt_tokens": count, "total_tokens": count}
    return JSONResponse({"object": "list", "data": data, "model": embedder, "usage": used})


def _embedded(service: Service, number: int, text: str) -> tuple[Any, int]:
    """A text's vector (d,) and its tokens; in the engine's thread, one in each turn."""
    embedder, most = service.worker.version.engine.embedder, service.limits.input_tokens
    said = f"at most {most} are embedded: cut it"
    if len(text) > most * LONGEST:
        raise Refused(400, f"input {number} has {len(text)} characters, surely more tokens than fit; {said}", "input")
    (tokens,) = embedder.lengths([text])
    if tokens > most:
        raise Refused(400, f"input {number} has {tokens} tokens, {said}", "input")
    return embedder.embed_each([text])[0], tokens


def _packed(row: Any) -> str:
    return base64.b64encode(np.asarray(row, "<f4").tobytes()).decode()


def models(service: Service) -> dict[str, Any]:
    """All of them: one."""
    return {"object": "list", "data": [model(service)]}


def model(service: Service) -> dict[str, Any]:
    """The model, and what may be asked of it."""
    made = service.artifact.manifest
    return {
        "id": service.model, "object": "model", "created": BEGUN, "owned_by": "coreinfer",
        "context": service.limits.context, "layers": made.layers, "width": made.width,
        "keep": service.keep or made.default_keep, "policies": ["auto", "similarity", "stability", "hybrid", "dense"],
        "artifact": service.worker.version.digest, "chat": service.chats,
    }  # fmt: skip
