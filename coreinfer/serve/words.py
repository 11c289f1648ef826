"""PURE: a text's tokens as they come -> characters that can be sent, up to a stop string.

Tokens become characters when somebody asks: of several at once they cost hardly more than of one.
"""

from collections.abc import Callable, Sequence

Decode = Callable[[list[int]], str]
HALF = "\ufffd"  # what a tokenizer makes of a character of which bytes are missing


class Words:
    """The text so far, whole characters of it, and nothing that may yet turn out to begin a stop string.

    All pieces together are ``decode`` of all tokens, cut before the first stop string.
    """

    def __init__(self, decode: Decode, stops: Sequence[str] = ()) -> None:
        self.decode, self.stops = decode, [stop for stop in stops if stop]
        self.stopped = False
        self._tokens, self._from, self._known = list[int](), 0, 0  # decoded from, and told up to, these tokens
        self._held = ""

    def take(self, token: int) -> None:
        """One more; no more are looked at once it has ``stopped``."""
        self._tokens.append(token)

    def said(self) -> str:
        """What the tokens since the last time let be sent."""
        return "" if self.stopped else self._release(self._new())

    def rest(self) -> str:
        """What was held back, once no token follows."""
        return "" if self.stopped else self._release(self._new(last=True), last=True)

    def _new(self, last: bool = False) -> str:
        """Characters that became whole. A tokenizer's decoding of a token depends on the one before it alone."""
        if self._known == len(self._tokens):
            return ""
        told = self.decode(self._tokens[self._from : self._known])
        whole = self.decode(self._tokens[self._from :])
        if whole.endswith(HALF) and not last:
            return ""
        self._from, self._known = self._known, len(self._tokens)
        return whole[len(told) :]

    def _release(self, new: str, last: bool = False) -> str:
        self._held += new
        found = [at for stop in self.stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped, out, self._held = True, self._held[: min(found)], ""
            return out
        keep = 0 if last else max((_begun(self._held, stop) for stop in self.stops), default=0)
        out, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return out


def _begun(text: str, stop: str) -> int:
    """How many of the last characters may be the beginning of ``stop``."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
