"""What a server shows beside its answers: neurons, routes, the page, metrics."""

import json
import re
from collections.abc import Iterator

import pyarrow as pa
import pytest
from conftest import CLUSTERS
from serving import Live, live, refused

from coreinfer.engine import Engine
from coreinfer.serve.limits import Limits
from coreinfer.serve.looking import ARROW

COMPLETIONS = "/v1/completions"


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Live]:
    with live(engine, limits=Limits(batch=2, queue=4, upload_s=1.0)) as made:
        yield made


def test_core_neurons_in_json_and_arrow(server: Live, engine: Engine) -> None:
    body = {"prompt": "The river that runs through the old town", "keep": 0.3}
    answer = server.post("/v1/core-neurons", body)
    wanted, found = engine.predict(body["prompt"], keep=0.3), answer.json()  # type: ignore[arg-type]
    assert wanted.neurons is not None
    assert found["neurons"] == [ids.tolist() for ids in wanted.neurons.layers]
    assert (found["policy"], found["source"], found["cluster"]) == ("auto", wanted.source, wanted.cluster)
    assert found["nearest"][0]["similarity"] == found["similarity"] == round(wanted.similarity, 6)
    assert found["prompt_tokens"] == engine.encode(body["prompt"]).shape[1]  # type: ignore[arg-type]
    assert "neurons" not in server.post("/v1/core-neurons", {**body, "neurons": False}).json()
    raw = server.post("/v1/core-neurons", body, headers={"Accept": ARROW})
    table = pa.ipc.open_stream(raw.content).read_all()
    assert raw.headers["content-type"] == ARROW
    assert table.column("neurons").to_pylist() == found["neurons"]
    assert json.loads(table.schema.metadata[b"coreinfer"])["artifact"] == answer.headers["x-coreinfer-artifact"]
    refused(server.post("/v1/core-neurons", {}), 400, "give one of them")


def test_routes_as_the_router_does(server: Live, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a prediction")

    monkeypatch.setattr(Engine, "planned", refuse)
    for prompt in ("The river that runs through the old town", "qqq 0x7f"):
        answer = server.post("/v1/route", {"prompt": prompt})
        (wanted,) = engine.match([prompt])
        found = answer.json()
        assert answer.status_code == 200
        assert (found["cluster"], found["similarity"]) == (wanted.cluster, round(wanted.similarity, 6))
        assert found["strong"] == (wanted.similarity >= engine.artifact.policy.threshold)
        assert found["terms"] == engine.artifact.terms[wanted.cluster][:8]
        assert answer.headers["x-coreinfer-artifact"] == server.server.version.digest
    refused(server.post("/v1/route", {"prompt": " "}), 400, "empty")
    refused(server.post("/v1/route", {}), 400, "prompt")


def test_the_page_and_what_it_draws(server: Live) -> None:
    index = server.get("/")
    assert index.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in index.headers["content-security-policy"]
    for name in re.findall(r'(?:src|href)="/?(page/[^"]+)"', index.text):
        assert server.get(f"/{name}").status_code == 200
    drawn = server.get("/v1/clusters")
    assert drawn.headers["x-coreinfer-artifact"] == server.server.version.digest
    assert len(drawn.json()["clusters"]) == CLUSTERS
    body = {"prompt": "A river", "neurons": False, "compare": True}
    assert len(server.post("/v1/core-neurons", body).json()["compare"]["layers"]) == 6


def test_metrics(server: Live) -> None:
    before = server.metric("coreinfer_tokens_total")
    server.post(COMPLETIONS, {"prompt": "A river, a bridge", "max_tokens": 5, "temperature": 0})
    assert server.metric("coreinfer_tokens_total") - before >= 5 + 4
    for name in ("requests_total", "first_token_seconds_count", "inter_token_seconds_count", "batch_size_count",
                 "cluster_matches_total", "set_switches_total", "set_cache_total"):  # fmt: skip
        assert server.metric(f"coreinfer_{name}") > 0, name
    assert server.metric("coreinfer_queue_length") == server.metric("coreinfer_slots_in_use") == 0
