"""What one client may ask for, and how much is taken on at a time."""

from dataclasses import dataclass

LOOPBACK = ("127.0.0.1", "localhost", "::1")  # where nobody but this machine asks


@dataclass(frozen=True)
class Limits:
    """
    Attributes:
        batch: texts that decode at a time; each has its share of the caches.
        queue: texts that may wait beside them; more are refused with 503.
        context: positions of a text, prompt and continuation.
        body: bytes of a request.
        seconds: from a request's arrival to its last token; what is there by then is the answer.
        grace_s: in which a server that stops finishes what it has begun.
        upload_s: within which a request's body has to be there.
        connections: that are open at a time.
        max_tokens, n, prompts, stop, stop_length, logprobs, inputs: of one request; the last is of /v1/embeddings.
        input_tokens: of one text that is embedded; each is embedded in a turn of its own.
    """

    batch: int = 8
    queue: int = 128
    context: int = 4096
    body: int = 1 << 20
    seconds: float = 600.0
    upload_s: float = 30.0
    grace_s: float = 30.0
    connections: int = 512
    max_tokens: int = 4096
    n: int = 4
    prompts: int = 16
    stop: int = 4
    stop_length: int = 256
    logprobs: int = 20
    inputs: int = 256
    input_tokens: int = 4096
