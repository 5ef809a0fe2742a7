"""Incremental detokenization: whole characters only, and nothing that could be part of a stop string.

The work is linear in the length of the answer. Every token's bytes are decoded once, and every character is compared
with each stop string a bounded number of times (Knuth, Morris and Pratt 1977).
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from mlagent_jax.text.tokenizer import Tokenizer


class IncrementalDetokenizer:
    """The text of one answer, up to the first stop string.

    tokens: how many tokens the text has taken so far. stopped: whether a stop string has ended it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[str] = (),
        hidden_token_ids: frozenset[int] = frozenset(),
        min_tokens: int = 0,
    ):
        """`hidden_token_ids`: not part of the text. `min_tokens`: stop strings that end within these do not count."""
        self._tokenizer, self._hidden_token_ids, self._min_tokens = tokenizer, hidden_token_ids, min_tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._matchers = [_Matcher(each) for each in stop]
        self._parts: list[str] = []
        self._held = ""  # may be the beginning of a stop string
        self.tokens = 0
        self.stopped = False

    @property
    def text(self) -> str:
        """All text returned so far."""
        return "".join(self._parts)

    def push(self, ids: Sequence[int], last: bool, hide_last: bool = False) -> str:
        """Adds tokens. Returns the text that is certain now, or all that is left if they are the `last` ones.

        hide_last: the last token of the answer is not part of its text.
        """
        texts = []
        # One by one, because the token that completes a stop string is the last one.
        for number, token in enumerate(ids, 1):
            is_last = last and number == len(ids)
            self.tokens += 1
            is_shown = token not in self._hidden_token_ids and not (hide_last and is_last)
            texts.append(self._decode(self._tokenizer.token_bytes(token) if is_shown else b"", is_last))
            if self.stopped:
                break
        if last and not ids:
            texts.append(self._decode(b"", True))
        self._parts += texts
        return "".join(texts)

    def _decode(self, new: bytes, last: bool) -> str:
        text = self._decoder.decode(new, last)
        held = len(self._held)
        ends = [(matcher.find(text), matcher.length) for matcher in self._matchers]
        starts = [end - length for end, length in ends if end and self.tokens > self._min_tokens]
        text = self._held + text
        if starts:
            self.stopped = True
            return text[: held + min(starts)]
        keep = 0 if last else max((matcher.matched for matcher in self._matchers), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


class _Matcher:
    """Finds one stop string in a text that arrives in pieces.

    matched: how many characters at the end of the text so far match the beginning of the stop string.
    """

    def __init__(self, stop: str):
        self._stop, self.length, self.matched = stop, len(stop), 0
        # The prefix function: for each prefix, the length of the longest shorter prefix that is also its suffix.
        self._prefix = [0] * self.length
        for i in range(1, self.length):
            self._prefix[i] = self._next(self._prefix[i - 1], stop[i])

    def find(self, text: str) -> int:
        """How many characters of `text` complete the stop string; 0 if it is not completed."""
        found = 0
        for count, character in enumerate(text, 1):
            self.matched = self._next(self.matched, character)
            if self.matched == self.length:
                found = found or count
                self.matched = self._prefix[-1]  # another match may overlap with this one
        return found

    def _next(self, matched: int, character: str) -> int:
        while matched and self._stop[matched] != character:
            matched = self._prefix[matched - 1]
        return matched + (self._stop[matched] == character)
