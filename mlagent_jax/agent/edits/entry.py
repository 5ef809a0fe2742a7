"""One entry of the catalogue: how an idea is worded and recognised, and what it does to a script."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import libcst as cst

from mlagent_jax.agent.edits.script import Problem
from mlagent_jax.environment.coder import CoderError

TABULAR_REGRESSION = "tabular regression"
TABULAR_CLASSIFICATION = "tabular classification"
IMAGE_CLASSIFICATION = "image classification"
TEXT_CLASSIFICATION = "text classification"
TEXT_REGRESSION = "text regression"

REGRESSION = frozenset({TABULAR_REGRESSION, TEXT_REGRESSION})
CLASSIFICATION = frozenset({TABULAR_CLASSIFICATION, IMAGE_CLASSIFICATION, TEXT_CLASSIFICATION})
TABULAR = frozenset({TABULAR_REGRESSION, TABULAR_CLASSIFICATION})
IMAGE = frozenset({IMAGE_CLASSIFICATION})
TEXT = frozenset({TEXT_CLASSIFICATION, TEXT_REGRESSION})
ALL = REGRESSION | CLASSIFICATION
DENSE = TABULAR | IMAGE

Values = Mapping[str, float]
_NUMBER = r"\d+(?:\.\d+)?"


@dataclass(frozen=True)
class Number:
    """A parameter: the values that ideas offer, and the range in which one is accepted."""

    offered: tuple[float, ...]
    low: float
    high: float
    whole: bool = True

    def read(self, name: str, text: str) -> float:
        value = float(text)
        if not self.low <= value <= self.high or (self.whole and value != int(value)):
            kind = "a whole number" if self.whole else "a number"
            raise CoderError(f"{name} is {text}, expected {kind} from {self.low:g} to {self.high:g}")
        return int(value) if self.whole else value


@dataclass(frozen=True)
class Edit:
    """A transformation of a script.

    axis: "data", "model" or "learning". kinds: the kinds of task that it is offered for.
    wording: the idea line, with {name} for each of `numbers`.
    keywords: regular expressions, each of which other words must contain; `unless`: none of which they may.
    apply: raises CoderError where the script leaves nothing to do it on.
    """

    id: str
    axis: str
    kinds: frozenset[str]
    wording: str
    apply: Callable[[cst.Module, Problem, Values], cst.Module]
    keywords: tuple[str, ...]
    unless: tuple[str, ...] = ()
    numbers: Mapping[str, Number] = field(default_factory=dict)

    def offers(self) -> list[Values]:
        """Every combination of offered numbers."""
        choices = itertools.product(*(number.offered for number in self.numbers.values()))
        return [dict(zip(self.numbers, values, strict=True)) for values in choices]

    def lines(self) -> list[str]:
        """Every idea line, one for each of `offers`."""
        return [self.line(values) for values in self.offers()]

    def line(self, values: Values) -> str:
        return self.wording.format(**{name: f"{value:g}" for name, value in values.items()})

    def exact(self, text: str) -> Values | None:
        """The numbers, if the normalised text is this entry's wording with numbers of its own; else None."""
        pattern = re.escape(normalise(self.wording))
        for name in self.numbers:
            pattern = pattern.replace(re.escape(f"{{{name}}}"), f"(?P<{name}>{_NUMBER})")
        found = re.fullmatch(pattern, text)
        if found is None:
            return None
        return {name: number.read(name, found[name]) for name, number in self.numbers.items()}

    def loose(self, text: str) -> bool:
        """Whether the normalised text speaks of this entry in other words."""
        said = all(re.search(word, text) for word in self.keywords)
        return said and not any(re.search(word, text) for word in self.unless)

    def loose_values(self, text: str) -> Values:
        """The normalised text's numbers in their order; the middle one offered for each that is missing."""
        given = re.findall(_NUMBER, text)
        values = {}
        for index, (name, number) in enumerate(self.numbers.items()):
            default = number.offered[len(number.offered) // 2]
            values[name] = number.read(name, given[index]) if index < len(given) else default
        return values


def normalise(text: str) -> str:
    """Lower case, British spellings made American, one space, no punctuation but what numbers need."""
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)  # thousands
    text = re.sub(r"(?<!\d)[.,](?!\d)|[^\w\s.%={}]|(?<=\d)[.,](?!\d)", " ", text.lower().replace("-", " "))
    text = re.sub(r"^(?:replace|swap|change) (?:the )?\w+ (?:by|with|for|to) (?!their)", "use ", text)
    text = re.sub(r"\bneighbour", "neighbor", text)
    text = re.sub(r"is(e[ds]?|ing|ation|er)\b", r"iz\1", text)
    return " ".join(text.split())
