"""An entry of the glossary of metrics."""

from __future__ import annotations

import re
from dataclasses import dataclass

SAME = "same"  # in verl: the same name, the same meaning


@dataclass(frozen=True)
class Metric:
    """One metric, or several that differ in the last part of their names: "critic/score/{mean,min,max}".

    where: the file and the function or class that computes it. verl: its name there, `SAME`, or "" for none.
    differs: how verl's differs, in a few words.
    """

    name: str
    unit: str
    meaning: str
    where: str
    verl: str = ""
    differs: str = ""

    @property
    def names(self) -> list[str]:
        before, brace, rest = self.name.partition("{")
        if not brace:
            return [self.name]
        choices, _, after = rest.partition("}")
        return [f"{before}{choice}{after}" for choice in choices.split(",")]

    def matches(self, logged: str) -> bool:
        return any(re.fullmatch(pattern(name), logged) for name in self.names)


def pattern(name: str) -> str:
    """What a logged name must match."""
    return re.sub("[A-Z]{2,}", "[^/]+", re.escape(name))
