"""What the event loop and the engine's thread tell each other about a request."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from coreinfer.decode.continuing import Sampling
from coreinfer.match import Match
from coreinfer.policy import Prediction
from coreinfer.serve.logprobs import Chances
from coreinfer.settings import Policy

if TYPE_CHECKING:
    from concurrent.futures import Future

    from torch import Tensor

Matched = tuple[object, Match]  # by whose index
MIXED = 0x9E3779B1  # a text's number times this, added to its request's seed, is its own


@dataclass(frozen=True)
class Wish:
    """What a request wants of each of its texts. ``keep``: None for that of the artifact that it will be answered with;
    ``logprobs``: how many likeliest tokens; None: none at all.
    """

    policy: Policy
    keep: float | None
    lossless: bool
    sampling: Sampling
    seed: int
    max_tokens: int
    stops: tuple[str, ...] = ()
    logprobs: int | None = None

    def seed_of(self, number: int) -> int:
        """Of a request's ``number``-th text: 0 <= seed < 2^31."""
        return (self.seed + number * MIXED) % (1 << 31)


@dataclass(frozen=True)
class Asked:
    """A prompt (1, P) in tokens, and the words that the embedder reads of it."""

    ids: "Tensor"
    words: str


@dataclass(frozen=True)
class Began:
    """A prompt was prefilled: which neurons its texts run on. ``number`` counts a request's prompts."""

    number: int
    prediction: Prediction
    digest: str


@dataclass(frozen=True)
class Piece:
    """More of the ``number``-th text: characters that may be sent, of one more token or several; "" where none are
    whole yet. ``chances``: of one token.
    """

    number: int
    text: str
    chances: Chances | None = None
    tokens: int = 1


@dataclass(frozen=True)
class Ended:
    """The ``number``-th text is whole. ``stopped``: as ``Generation``'s, or ``stop``, ``time``."""

    number: int
    stopped: str
    tokens: int
    queue_s: float
    first_token_s: float
    decode_s: float


@dataclass(frozen=True)
class Failed:
    """Nothing more comes."""

    error: BaseException


Event = Began | Piece | Ended | Failed


@dataclass(eq=False)
class Job:
    """A request. ``tell`` hands an event to whoever waits for it; ``gone``: nobody does any more; ``by``: who prefills
    it, from its first prompt on; ``matches``: of each prompt, or none where the engine's thread finds them.
    """

    prompts: list[Asked]
    n: int
    wish: Wish
    tell: Callable[[Event], Any]
    deadline: float
    gone: bool = False
    arrived: float = field(default_factory=time.monotonic)
    left: float = 0.0
    by: Any = None
    matches: "list[Future[Matched | None]]" = field(default_factory=list)

    def leave(self) -> None:
        """Nobody waits for it any more; called by the event loop."""
        self.gone, self.left = True, time.monotonic()

    def fail(self, error: BaseException) -> None:
        """Nothing more comes of it; told once."""
        if not self.gone:
            self.gone = True
            self.tell(Failed(error))

    @property
    def late(self) -> bool:
        return time.monotonic() > self.deadline
