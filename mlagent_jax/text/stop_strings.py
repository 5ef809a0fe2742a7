"""Text from tokens as they are sampled: whole characters only, and nothing that may be part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from mlagent_jax.text.chat import response_text
from mlagent_jax.text.tokenizer import Tokenizer

_INCOMPLETE = "\ufffd"  # bytes that are no character, or not yet


class TextStream:
    """The text of one answer; `stopped` once one of `stops` is in it, which ends it before that.

    tokens: how many were needed for it.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()):
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._ids: list[int] = []
        self._given = 0
        self.text = ""
        self.stopped = False

    @property
    def tokens(self) -> int:
        return len(self._ids)

    def push(self, ids: Sequence[int], last: bool) -> str:
        """What can be given out now that these ids are known as well; all that is left where they are the `last`."""
        if not self._stops:
            self._ids += ids
            return self._give(last)
        given = ""
        for number, one in enumerate(ids, 1):  # one at a time: the stop's own token is the last that counts
            self._ids.append(one)
            given += self._give(last and number == len(ids))
            if self.stopped:
                return given
        return given

    def _give(self, last: bool) -> str:
        text = response_text(self._tokenizer, self._ids)
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped = True
            text = text[: min(found)]
        elif not last:
            text = text.rstrip(_INCOMPLETE)
            text = text[: len(text) - max((_begun(text, stop) for stop in self._stops), default=0)]
        if len(text) < self._given:
            return ""
        given, self._given, self.text = text[self._given :], len(text), text
        return given


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of `text` may be the beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
