"""Text from tokens as they are sampled: whole characters only, and nothing that may be part of a stop string.

The work is linear in the answer: every token's bytes are decoded once, and every character is compared with each stop
string but a bounded number of times (Knuth, Morris and Pratt 1977).
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from mlagent_jax.text.tokenizer import Tokenizer


class TextStream:
    """The text of one answer; `stopped` once one of `stops` is in it, which ends it before that.

    tokens: how many were needed for it. hidden: ids that are no text, such as a turn's end. least: how many tokens
    there are at least, whatever stop string these complete.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stops: Sequence[str] = (),
        hidden: frozenset[int] = frozenset(),
        least: int = 0,
    ):
        self._tokenizer, self._hidden, self._least = tokenizer, hidden, least
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._matchers = [_Matcher(stop) for stop in stops]
        self._parts: list[str] = []
        self._held = ""
        self.tokens = 0
        self.stopped = False

    @property
    def text(self) -> str:
        """All that was given out."""
        return "".join(self._parts)

    def push(self, ids: Sequence[int], last: bool, silent: bool = False) -> str:
        """What can be given out now that these ids are known as well; all that is left where they are the `last`.

        silent: the last of them ends the answer and is not part of its text.
        """
        given = []
        for number, token in enumerate(ids, 1):  # one at a time: the stop's own token is the last that counts
            ends = last and number == len(ids)
            self.tokens += 1
            shown = token not in self._hidden and not (silent and ends)
            given.append(self._grow(self._tokenizer.token_bytes(token) if shown else b"", ends))
            if self.stopped:
                break
        if last and not ids:
            given.append(self._grow(b"", True))
        self._parts += given
        return "".join(given)

    def _grow(self, new: bytes, last: bool) -> str:
        text = self._decoder.decode(new, last)
        held = len(self._held)
        ends = [(matcher.find(text), matcher.length) for matcher in self._matchers]
        begins = [end - length for end, length in ends if end and self.tokens > self._least]
        text = self._held + text
        if begins:
            self.stopped = True
            return text[: held + min(begins)]
        keep = 0 if last else max((matcher.begun for matcher in self._matchers), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


class _Matcher:
    """Looks for one stop string in a text that comes in pieces.

    begun: how many characters at the end of the text so far may be the beginning of it.
    """

    def __init__(self, stop: str):
        self._stop, self.length, self.begun = stop, len(stop), 0
        self._shorter = [
            0
        ] * self.length  # of the part up to each character: the longest beginning that also ends it
        for i in range(1, self.length):
            self._shorter[i] = self._next(self._shorter[i - 1], stop[i])

    def find(self, text: str) -> int:
        """How many characters of `text` it takes to complete the stop string; 0 where they do not."""
        found = 0
        for count, character in enumerate(text, 1):
            self.begun = self._next(self.begun, character)
            if self.begun == self.length:
                found = found or count
                self.begun = self._shorter[-1]  # it may begin anew within itself
        return found

    def _next(self, begun: int, character: str) -> int:
        while begun and self._stop[begun] != character:
            begun = self._shorter[begun - 1]
        return begun + (self._stop[begun] == character)
