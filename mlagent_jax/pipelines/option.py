"""What an option of a slot is: the call that it renders to, its parameters and how it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from mlagent_jax.pipelines.grammar import placeholders
from mlagent_jax.pipelines.pipeline import KINDS, Choice, Params, PipelineError, Value

ALL = frozenset(KINDS)
TABLE, TEXT, PAIR, IMAGE, PAGES, SERIES, GRAPH = (frozenset({kind}) for kind in KINDS)
BOTH = ("classification", "regression")
SEED = "random_state=0"
PARAM_GOALS = {"class_weight": BOTH[:1], "loss": BOTH[1:]}  # of parameters that one goal has


@dataclass(frozen=True)
class NumericParam:
    """A parameter that is a number. candidates: values that are proposed. percent: said as a percentage."""

    candidates: tuple[float, ...]
    low: float
    high: float
    percent: bool = False

    @property
    def whole(self) -> bool:
        return all(isinstance(one, int) for one in self.candidates)

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

    def value(self, one: Value) -> Value:
        return one


Param = NumericParam | CategoricalParam


@dataclass(frozen=True)
class Option:
    """what: slot, name and class or function, as in "scaling.standard StandardScaler"; two where they differ by goal,
    "-" for a goal without. said: its wordings, see `grammar`. number: the parameter that is said.

    others: parameters that can be set afterwards. base: set when it is chosen. second: those of a second model.
    first: what stands before the parameters, for each goal if it differs. fixed: what stands after them, always.
    """

    what: str
    said: str
    kinds: frozenset[str] = ALL
    number: NumericParam | None = None
    others: Mapping[str, Param] = field(default_factory=dict)
    base: Params = ()
    second: Params = ()
    first: tuple[str, ...] = ("",)
    fixed: str = ""

    @cached_property
    def slot(self) -> str:
        return self.what.partition(".")[0]

    @cached_property
    def name(self) -> str:
        return self.what.split()[0].partition(".")[2]

    @cached_property
    def params(self) -> Mapping[str, Param]:
        """All that can be set, in the order in which they are written."""
        return {**self.numbers, **self.others}

    @cached_property
    def numbers(self) -> dict[str, NumericParam]:
        """The parameters that are said with the option."""
        return dict.fromkeys(placeholders(self.said), self.number) if self.number else {}

    def callee(self, goal: str) -> str:
        calls = self.what.split()[1:]
        return calls[BOTH.index(goal) if len(calls) > 1 else 0].strip("-")

    def supports(self, kind: str, goal: str) -> bool:
        return kind in self.kinds and bool(self.callee(goal))

    @property
    def goals(self) -> tuple[str, ...]:
        return tuple(goal for goal in BOTH if self.callee(goal))

    def choice(self, values: Mapping[str, Value | None]) -> Choice:
        """The option with these parameters and its own of `base`, in order. None is one that is not set."""
        merged = {**dict(self.base), **values}
        pairs = ((name, merged.get(name)) for name in self.params)
        return Choice(self.name, tuple((name, value) for name, value in pairs if value is not None))

    def source(self, choice: Choice, goal: str) -> list[str]:
        """The call's arguments."""
        named = [f"{name}={literal(value)}" for name, value in choice.params]
        return [
            one
            for one in (self.first[BOTH.index(goal) % len(self.first)], *named, *self.fixed.split("; "))
            if one
        ]


def literal(value: Value) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)
