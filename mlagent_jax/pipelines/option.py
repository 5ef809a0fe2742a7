"""What an option of a slot is: the call that it renders to, its parameters and how it is asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlagent_jax.pipelines.pipeline import KINDS, Choice, Params, PipelineError, Value

ALL = frozenset(KINDS)
TABLE, TEXT, PAIR, IMAGE, PAGES, SERIES, GRAPH = (frozenset({kind}) for kind in KINDS)
BOTH = ("classification", "regression")


@dataclass(frozen=True)
class NumericParam:
    """A parameter that is a number. candidates: values that are proposed. percent: said as a percentage."""

    candidates: tuple[float, ...]
    low: float
    high: float
    whole: bool = True
    percent: bool = False

    def read(self, name: str, said: str) -> Value:
        """Raises PipelineError for a number outside of the range or, where it must be whole, between numbers."""
        value = round(float(said) / 100, 6) if self.percent else float(said)
        if not self.low <= value <= self.high or (self.whole and value != int(value)):
            kind = "a whole number" if self.whole else "a number"
            raise PipelineError(
                f"{name} must be {kind} from {self.say(self.low)} to {self.say(self.high)}, not {said}"
            )
        return self.value(value)

    def value(self, number: float) -> Value:
        return int(number) if self.whole else float(number)

    def say(self, value: Value) -> str:
        number = float(value)  # type: ignore[arg-type]
        return f"{100 * number if self.percent else number:g}"


@dataclass(frozen=True)
class CategoricalParam:
    """A parameter that is one of a few values."""

    candidates: tuple[Value, ...]


@dataclass(frozen=True)
class Option:
    """call: the class or function by goal, "" where there is none. said: its wordings, see `grammar`.

    params: those that can be set, in the order in which they are written. base: set when it is chosen.
    first: what stands before the parameters, by goal. fixed: what stands after them, always.
    """

    slot: str
    name: str
    call: tuple[str, str]
    said: str
    kinds: frozenset[str] = ALL
    params: Mapping[str, NumericParam | CategoricalParam] = field(default_factory=dict)
    base: Params = ()
    first: tuple[str, str] = ("", "")
    fixed: str = ""

    def callee(self, goal: str) -> str:
        return self.call[BOTH.index(goal)]

    def supports(self, kind: str, goal: str) -> bool:
        return kind in self.kinds and bool(self.callee(goal))

    def numbers(self) -> dict[str, NumericParam]:
        """The parameters that are said with the option."""
        said = re.findall(r"\{(\w+)\}", self.said)
        return {
            name: one for name, one in self.params.items() if name in said and isinstance(one, NumericParam)
        }

    def choice(self, values: Mapping[str, Value]) -> Choice:
        """The option with these parameters and its own of `base`, in order."""
        merged = {**dict(self.base), **values}
        return Choice(self.name, tuple((name, merged[name]) for name in self.params if name in merged))

    def source(self, choice: Choice, goal: str) -> list[str]:
        """The call's arguments."""
        named = [f"{name}={literal(value)}" for name, value in choice.params]
        return [one for one in (self.first[BOTH.index(goal)], *named, *self.fixed.split("; ")) if one]


def literal(value: Value) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def with_param(choice: Choice, option: Option, name: str, value: Value | None) -> Choice:
    """The choice with one parameter set, or for None not set."""
    merged = {key: one for key, one in (*choice.params, (name, value)) if one is not None and key != name}
    if value is not None:
        merged[name] = value
    return Choice(choice.name, tuple((key, merged[key]) for key in option.params if key in merged))
