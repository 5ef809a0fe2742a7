"""A coder for agents that know the script that they want."""

from __future__ import annotations


class VerbatimCoder:
    """Implements `Coder`: the instruction is the edited script.

    Searches use it, which write nothing but renderings of pipelines.
    """

    name = "verbatim"
    writes_free_code = False

    def edit(self, script: str, instruction: str) -> str:
        return instruction

    def understand(self, text: str, question: str) -> str:
        return f"{len(text.splitlines())} lines of text."
