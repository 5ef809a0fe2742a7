"""Tokens that a chat template writes by name, such as `<|im_end|>`, found in its text."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from mlagent_jax.text.chat_template import ChatTemplateError


class ControlTokens:
    """ids: of each, by name. lstrip, rstrip: names whose token takes in the white space before or after it."""

    def __init__(self, ids: Mapping[str, int], lstrip: Collection[str] = (), rstrip: Collection[str] = ()):
        self.ids = dict(ids)
        names = sorted(self.ids, key=len, reverse=True)  # the longest that fits
        spaces = [(r"\s*" * (name in lstrip), name, r"\s*" * (name in rstrip)) for name in names]
        patterns = [before + re.escape(name) + after for before, name, after in spaces]
        self._pattern = re.compile("|".join(patterns) or r"(?!)")

    def split(self, text: str) -> list[str | int]:
        """Text and ids of control tokens, in order."""
        parts: list[str | int] = []
        at = 0
        for match in self._pattern.finditer(text):
            parts += [text[at : match.start()], self._id(match)]
            at = match.end()
        return [part for part in [*parts, text[at:]] if part != ""]

    def first(self, text: str) -> tuple[str, int, str]:
        """What lies before the control token that ends a turn, its id, and what lies after.

        Raises ChatTemplateError where text comes first: then no token ends the turn.
        """
        match = self._pattern.search(text)
        if match is None or text[: match.start()].strip():
            raise ChatTemplateError(
                f"the model's chat template ends an assistant's turn with {text[:40]!r}, which is no token of its "
                "tokenizer; use a checkpoint that has one for the end of a turn"
            )
        return text[: match.start()], self._id(match), text[match.end() :]

    def named_in(self, text: str) -> bool:
        return self._pattern.search(text) is not None

    def _id(self, match: re.Match[str]) -> int:
        return self.ids[match.group() if match.group() in self.ids else match.group().strip()]
