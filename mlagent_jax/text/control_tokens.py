"""Control tokens, such as `<|im_end|>`, and how to find their names in a chat template's text."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from mlagent_jax.text.chat_template import ChatTemplateError


class ControlTokens:
    """`ids`: of each control token, by name."""

    def __init__(self, ids: Mapping[str, int], lstrip: Collection[str] = (), rstrip: Collection[str] = ()):
        """`lstrip`, `rstrip`: names of tokens that include the white space before or after them."""
        self.ids = dict(ids)
        names = sorted(self.ids, key=len, reverse=True)  # the longest match wins
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

    def partition_end_of_turn(self, text: str) -> tuple[str, int, str]:
        """Splits a delimiter after an assistant's content: the text before the end of turn, its id, and the rest.

        Raises ChatTemplateError if other text comes first: then the end of turn is not a token.
        """
        match = self._pattern.search(text)
        if match is None or text[: match.start()].strip():
            raise ChatTemplateError(
                f"the model's chat template ends an assistant's turn with {text[:40]!r}, which is not a token of its "
                "tokenizer; use a checkpoint that has a token for the end of a turn"
            )
        return text[: match.start()], self._id(match), text[match.end() :]

    def occurs_in(self, text: str) -> bool:
        return self._pattern.search(text) is not None

    def _id(self, match: re.Match[str]) -> int:
        return self.ids[match.group() if match.group() in self.ids else match.group().strip()]
