"""What a request may hold: OpenAI's fields, ours beside them, and nothing else.

Fields that OpenAI has and nothing here does are taken where their value asks for nothing.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from coreinfer.serve.limits import Limits

TOP = Limits()
WORDS = 1 << 20  # characters of one prompt, as many as a body has bytes
Text = Annotated[str, StringConstraints(max_length=WORDS)]
Token = Annotated[int, Field(ge=0, lt=1 << 31)]
Tokens = Annotated[list[Token], Field(min_length=1)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=TOP.stop_length)]
Inputs = Annotated[list[Text], Field(min_length=1, max_length=TOP.inputs)]
PolicyName = Literal["auto", "similarity", "stability", "hybrid", "dense"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class Core(Strict):
    """Ours. ``keep``: a share of all MLP neurons, one that was calibrated; ``lossless``: the dense model's text."""

    policy: PolicyName | None = None
    keep: Annotated[float, Field(gt=0, le=1)] | None = None


class StreamOptions(Strict):
    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class Plain(Strict):
    type: Literal["text"]


class Generating(Core):
    """What completions and chat completions share."""

    model: str | None = None
    lossless: bool = False
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1, le=TOP.n)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=TOP.stop)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _streamed(self) -> "Generating":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options are for a stream: give stream true, or leave them out")
        return self


class Completion(Generating):
    """POST /v1/completions."""

    prompt: Text | Tokens | Annotated[list[Text] | list[Tokens], Field(min_length=1, max_length=TOP.prompts)]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=TOP.logprobs)] | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    suffix: Annotated[str, StringConstraints(max_length=0)] | None = None

    @model_validator(mode="after")
    def _echoed(self) -> "Completion":
        if self.echo and self.logprobs is not None:
            raise ValueError("the prompt's own logprobs are not computed: leave out echo or logprobs")
        return self


class Part(Strict):
    type: Literal["text"]
    text: Text


class Turn(Strict):
    """Of a conversation. ``name``: taken, but no template here writes it."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Part], Field(min_length=1)]
    name: str | None = None
    refusal: None = None

    @property
    def plain(self) -> dict[str, str]:
        said = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": said}


Turns = Annotated[list[Turn], Field(min_length=1)]


class Chat(Generating):
    """POST /v1/chat/completions."""

    messages: Turns
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=TOP.logprobs)] | None = None
    response_format: Plain | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None
    store: Literal[False] | None = None
    metadata: dict[str, str] | None = None
    service_tier: Literal["auto", "default"] | None = None

    @model_validator(mode="after")
    def _counted(self) -> "Chat":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs is for logprobs true: give that, or leave it out")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens differ: leave out one of them")
        return self


class CoreNeurons(Core):
    """POST /v1/core-neurons: one of ``prompt`` and ``messages``. ``compare``: beside its cluster's, as the page
    has it.
    """

    model: str | None = None
    prompt: Text | None = None
    messages: Turns | None = None
    neurons: bool = True
    compare: bool = False

    @model_validator(mode="after")
    def _one(self) -> "CoreNeurons":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("prompt and messages both say what is asked: give one of them")
        return self


class Routed(Strict):
    """POST /v1/route."""

    model: str | None = None
    prompt: Text


class Embeddings(Strict):
    """POST /v1/embeddings."""

    input: Text | Inputs
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: None = None
    user: str | None = None


class Swap(Strict):
    """POST /admin/artifact: a folder on the server."""

    path: Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]
