"""The verb ``serve``: parse, check what is cheap, then load and answer."""

import asyncio
import logging
import os
from typing import Annotated

import typer

from coreinfer.cli_options import (
    ArtifactOption,
    DeviceOption,
    DtypeOption,
    EmbedderOption,
    KeepOption,
    ModelOption,
    PolicyOption,
    QuietOption,
    make_engine,
    open_artifact,
    say,
)
from coreinfer.errors import CoreInferError
from coreinfer.settings import at_least

KEY = "COREINFER_API_KEY"


def serve(
    artifact: ArtifactOption = None,
    model: ModelOption = None,
    embedder: EmbedderOption = None,
    host: Annotated[str, typer.Option(help="Another than this machine's own needs a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(help=f"Asked for on every route but /health. [default: ${KEY}, which ps does not show]"),
    ] = None,
    policy: PolicyOption = "auto",
    keep: KeepOption = None,
    batch: Annotated[int, typer.Option(help="Texts decoded at a time.")] = 8,
    queue: Annotated[int, typer.Option(help="Texts that may wait; more get 503.")] = 128,
    context: Annotated[int, typer.Option(help="Tokens of a text at most, prompt and all.")] = 4096,
    timeout: Annotated[float, typer.Option(help="Seconds that a request may take.")] = 600.0,
    plain_chat: Annotated[
        bool, typer.Option("--plain-chat", help="Turns as `User: … Assistant:` where the model has no chat template.")
    ] = False,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Prompts are in no log without it.")] = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "auto",
    quiet: QuietOption = False,
) -> None:
    """Answer OpenAI's clients, several at a time, each on the neurons that its prompt needs."""
    for name, value in (("--batch", batch), ("--queue", queue), ("--context", context)):
        at_least(name, value, 1)
    if not 0 <= port < 1 << 16:
        raise CoreInferError(f"--port is {port}: give 1 to 65535, or 0 for a free one")
    if not timeout > 0:
        raise CoreInferError(f"--timeout is {timeout:g}: give seconds, such as 600")
    opened = open_artifact(artifact, dtype, policy, [keep] if keep is not None else [])
    key = _key(os.environ.get(KEY) if api_key is None else api_key)
    _check_installed()
    from coreinfer.serve.sockets import bound

    sock = bound(host, port, key)
    engine = make_engine(opened, model, embedder, device, dtype, quiet=quiet)
    from coreinfer.serve.lifetime import Server, Serving, until_stopped
    from coreinfer.serve.limits import Limits

    limits = Limits(batch=batch, queue=queue, context=context, seconds=timeout)
    how = Serving(key, policy, keep, plain_chat, log_prompts, limits)  # type: ignore[arg-type]
    server = Server(engine, sock, how)
    level = logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("coreinfer.serve").setLevel(level)
    place = f"http://{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}"
    asyncio.run(until_stopped(server, lambda: say(f"serving {server.model} on {place}/v1", quiet)))


def _key(given: str | None) -> str | None:
    """As clients can send it: without spaces around it, in ASCII."""
    key = None if given is None else given.strip()
    if key == "":
        raise CoreInferError(f"the key is empty: give --api-key or {KEY} some letters, or leave both out")
    if key is not None and not (key.isascii() and key.isprintable()):
        raise CoreInferError("the key has characters that a header cannot hold: give ASCII letters, digits and signs")
    return key


def _check_installed() -> None:
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise CoreInferError(f"a server needs {error.name}: pip install 'coreinfer[serve]'") from error
